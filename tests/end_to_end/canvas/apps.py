"""The app of a line: Celery's, or ours, with the same tasks for its sender and its worker."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from celery import Celery

from celery_inbox import idempotent
from celery_outbox import OutboxCelery
from tests.end_to_end.canvas.journal import Journal
from tests.end_to_end.canvas.steps import register


@dataclass(frozen=True, slots=True)
class Plan:
    """What a line is made of, as it is handed to its worker."""

    line: str
    #: The Redis that its tasks write to.
    journal: str
    results: str
    #: Not of a sender through the outbox, which needs none.
    broker: str = ""
    #: Whether the app is an OutboxCelery.
    outbox: bool = False
    #: What is around the bodies of its tasks, one of AROUND, with the database it is of.
    around: str = ""
    database: str = ""


def make_app(plan: Plan) -> tuple[Any, Journal]:
    """Return the app and what its tasks write to."""
    kind = OutboxCelery if plan.outbox else Celery
    app: Any = kind(plan.line, broker=plan.broker or None, set_as_current=False)
    app.conf.update(
        result_backend=plan.results,
        broker_connection_retry_on_startup=True,
    )
    journal = Journal(plan.journal, plan.line)
    if plan.around:
        register(app, journal, AROUND[plan.around](plan.database))
    else:
        register(app, journal)
    return app, journal


def _inbox(database: str) -> Any:
    """Have bodies run once for each message, in a transaction that what they send joins."""

    def decorate(body: Any) -> Any:
        @idempotent(database)
        def run(self: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
            return body(self, *args, **kwargs)

        return run

    return decorate


def _block(database: str) -> Any:
    """Have bodies run in a transaction of their own, which whatever they raise rolls back."""

    def decorate(body: Any) -> Any:
        def run(self: Any, *args: Any, **kwargs: Any) -> Any:
            with psycopg.connect(database) as connection, self.app.outbox.using(connection):
                return body(self, *args, **kwargs)

        return run

    return decorate


AROUND: Final[dict[str, Callable[[str], Any]]] = {"an inbox": _inbox, "a block": _block}
