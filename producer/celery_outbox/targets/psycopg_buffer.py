"""Buffers messages, and inserts them right before the next operation of a psycopg connection.

Every operation on a connection passes through its `wait()`, which takes a generator that talks to
the server. From the first send on, that `wait()` first runs another generator, the INSERT of what
is buffered, many in one statement. A SAVEPOINT, ROLLBACK TO, SELECT or COMMIT therefore finds each
row exactly where the code sent it, and sending needs no await on an AsyncConnection.

A connection has one buffer, for as long as it lives. Adding to it never waits, whichever thread,
task or greenlet does it, and nothing but an INSERT takes from it: what is in it when a block ends,
while the connection is busy elsewhere, goes out with the next operation, the COMMIT at the latest.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar, cast
from weakref import ref

from psycopg import Connection, Pipeline
from psycopg.pq import TransactionStatus

from celery_outbox.statements.commands import Entry
from celery_outbox.targets.psycopg_insertion import (
    AnyConnection,
    Insertion,
    Operation,
    in_pipeline,
)

T = TypeVar("T")

_KEY: Final = "_celery_outbox"


class Buffer:
    """The messages sent on one connection and not yet inserted; stands in for its `wait()`."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = ref(connection)  # which holds this: a cycle would keep both
        self._beneath: Callable[..., Any] | None = vars(connection).get("wait")
        self._installed = False
        self._commit_is_next = False
        #: In the order of sending.
        self.entries: deque[Entry] = deque()
        #: The `async with` blocks that are open: they await what a send cannot.
        self.async_blocks: set[object] = set()

    @classmethod
    def of(cls, connection: AnyConnection) -> "Buffer":
        """Return the buffer of `connection`, with its `wait()` replaced before anything is added.

        Threads that come here at one moment get the same one, and either does what is to be done.
        """
        own = vars(connection)
        found = cast("Buffer | None", own.get(_KEY))
        if found is None:
            found = cast("Buffer", own.setdefault(_KEY, cls(connection)))
        if not found._installed:
            own["wait"] = found.wait
            found._installed = True
        return found

    def wait(self, operation: Operation[T], *args: Any, **kwargs: Any) -> Any:
        """Do what the connection's `wait()` does, with the messages inserted first."""
        connection: Any = self._connection()
        together, self._commit_is_next = self._commit_is_next, False
        wait = self._beneath or partial(type(connection).wait, connection)
        # With a timeout psycopg waits for notifications: the INSERT is not to be broken off.
        if not self.entries or kwargs.get("timeout") is not None or not self._due(connection):
            return wait(operation, *args, **kwargs)
        insertion = Insertion(connection, self.entries)
        both = (insertion.together_with if together else insertion.before)(operation)
        if not isinstance(connection, Connection):
            return _awaited(wait(both, *args, **kwargs), insertion, both)
        try:
            return wait(both, *args, **kwargs)
        except BaseException:
            insertion.break_off(both)
            raise

    def awaits_commit(self) -> bool:
        """Take note that the next operation is the COMMIT, and tell whether it takes all along.

        Sent together, INSERT and COMMIT take one round trip.
        """
        connection: Any = self._connection()
        self._commit_is_next = (
            Pipeline.is_supported()
            and connection._pipeline is None
            and not connection.lock.locked()
            and all(entry.message.dedup_key is None for entry in self.entries)
        )
        return self._commit_is_next

    def _due(self, connection: AnyConnection) -> bool:
        match connection.pgconn.transaction_status:
            case TransactionStatus.INERROR:
                self.entries.clear()  # sent as the operation failed that they roll back with
                return False
            case TransactionStatus.ACTIVE:
                # In the middle of a COPY or stream nothing else can run; nor can a savepoint.
                return in_pipeline(connection)
            case TransactionStatus.UNKNOWN:
                return False
        return True


async def _awaited(waiting: Awaitable[T], insertion: Insertion, both: Operation[T]) -> T:
    try:
        return await waiting
    except BaseException:
        insertion.break_off(both)
        raise


def nothing() -> Operation[None]:
    """Return an operation that only gives the buffered messages their turn."""
    yield from ()
