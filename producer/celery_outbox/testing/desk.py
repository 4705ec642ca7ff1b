"""A test's database: what waits in its outbox is looked at, taken out and put in.

In the transaction of the test where one is in progress, else in one that commits at once. Written
once for every kind of target: on one that is not asynchronous nothing here ever waits.
"""

from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from contextlib import asynccontextmanager
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from celery import Celery

from celery_outbox import settings
from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Outcome, Rows
from celery_outbox.statements.insert import CANCEL
from celery_outbox.targets.target import Target, target_for
from celery_outbox.testing.messages import OWN, OWN_OR_WAITING, Row

T = TypeVar("T")


class Desk:
    """The outbox as `target` sees it."""

    def __init__(self, app: Celery, target: object) -> None:
        self._target = target
        self._schema = settings.schema(app)
        #: Whether there is anything to await.
        self.asynchronous = iscoroutinefunction(getattr(target, "rollback", None))

    async def waiting(self, sent: Sequence[str]) -> list[Row]:
        """Return what the transaction would send, and what waits of the messages `sent` before it.

        With none in progress: all that waits. In the order of insertion.
        """
        within = self._joined().in_transaction()
        async with self._transaction() as joined:
            rows = await _answer(joined.fetch(OWN if within else OWN_OR_WAITING, list(sent)))
            return [Row(*row) for row in rows]

    async def take(self, message_id: str) -> bool:
        """Take a message out, whatever rows it has. False where it is not there any more."""
        async with self._transaction() as joined:
            rows = await _answer(joined.fetch(CANCEL, message_id))
            return bool(rows[0][0])

    async def put(self, message: Parcel) -> Outcome:
        """Put a message in."""
        async with self._transaction() as joined:
            return joined.put_alone(message)

    def _joined(self) -> Target:
        return target_for(self._target, self._schema)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Target]:
        joined = self._joined()
        if joined.in_transaction():
            yield joined
        elif self.asynchronous:
            async with joined.abegin():
                yield joined
        else:
            with joined.begin():
                yield joined


async def _answer(rows: Rows | Awaitable[Rows]) -> Rows:
    return rows if isinstance(rows, list) else await rows


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine comes to that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("the target is asynchronous: await this")
