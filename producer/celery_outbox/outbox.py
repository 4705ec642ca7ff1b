"""`app.outbox`: what an application sends through. dispatch.py finds out where a message goes."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, overload

from celery import Celery
from kombu import Exchange, Queue

from celery_outbox.block import Transaction, Using
from celery_outbox.capture.channel import OutboxProducer
from celery_outbox.capture.event import event, name_of
from celery_outbox.dispatch import Dispatch
from celery_outbox.many.sending import send_many
from celery_outbox.statements.commands import Rows
from celery_outbox.statements.insert import CANCEL
from celery_outbox.targets.target import AsyncTarget, SyncTarget, target_for

T = TypeVar("T")


class Outbox:
    """What an application sends through. One per app, as `app.outbox`; threads share it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._dispatch = Dispatch(app)
        #: What Celery is given instead of a producer with a connection.
        self.producer = OutboxProducer(app, self._publish_by_producer)

    def using(self, target: T) -> Using[T]:
        """Return a block in which every task sent becomes a row in the transaction of `target`.

        For `with`, and `async with` where the target is asynchronous. The transaction is yours: it
        is not begun, committed or rolled back here. The rows are in it at the latest when the
        block ends without an error. `target` is a connection of psycopg or psycopg2, a Session or
        Connection of SQLAlchemy, the asynchronous ones included, or the alias of a Django database.

        Raises UnusableTarget on entry, such as for a connection in autocommit mode.
        """
        return Using(target, target_for(target, self._dispatch.schema))

    def transaction(self, target: T) -> Transaction[T]:
        """Return a block like that of `using`, which is a transaction as well.

        It begins one, commits it, or rolls it back after an error; within another transaction it
        is a savepoint.
        """
        return Transaction(target, target_for(target, self._dispatch.schema))

    def publish(
        self,
        target: object | None,
        payload: Any,
        *,
        exchange: str | Exchange = "",
        routing_key: str = "",
        headers: Mapping[str, Any] | None = None,
        name: str | None = None,
        mandatory: bool | None = None,
        declare: Iterable[Queue | Exchange] = (),
        ordering_key: str | None = None,
        dedup_key: str | None = None,
        **options: Any,
    ) -> str:
        """Send a message that is not a task, such as an event, and return its message id.

        It joins the transaction of `target`, or for None the one a task would join. An `exchange`
        given as kombu.Exchange is declared if it is missing. `name` is what operators see, the
        routing key or else the exchange by default. `mandatory` says whether reaching no queue is
        a failure: so by default, except on a fanout exchange. `ordering_key` and `dedup_key` are
        those of tasks; the id returned is that of the message that is pending, or on an
        asynchronous target, which cannot tell, always this one's. `options` are those of
        kombu.Producer.publish: `serializer`, `compression`, `priority`, `expiration` in seconds,
        `correlation_id`, `reply_to`, `type` and so on.

        Raises UnpublishableMessage, UnsupportedOption, UnusableTarget or NoTransaction.
        """
        name = name or name_of(exchange, routing_key, headers or {})
        decision = self._dispatch.decide_event(name, target)
        message = event(
            self._app,
            self._dispatch.capturing,
            name,
            payload,
            exchange=exchange,
            headers=headers or {},
            mandatory=mandatory,
            declare=declare,
            ordering_key=ordering_key,
            dedup_key=dedup_key,
            options={**options, "routing_key": routing_key},
        )
        return self._dispatch.carry_out(decision, message).pending_id

    def send_many(
        self, task: Any, calls: Iterable[tuple[Any, ...]], **options: Any
    ) -> Sequence[str]:
        """Send `task` once for each of `calls`, and return the ids, in order.

        A call is a tuple of positional arguments, or a pair `(args, kwargs)` of a tuple and a
        dictionary; of a task whose two arguments are these, `((a_tuple, a_dict), {})`. `options`
        are those of apply_async, the same for every call, `outbox=` included. What is stored is
        what a loop of apply_async would have stored, several times as fast where nobody listens to
        the signals of a send or replaced a part of it. Whoever yields may use the connection: a
        savepoint takes along what was yielded in it. With psycopg2, Django's too, each task is
        therefore inserted by itself in a transaction, unless `calls` is a list or the like.

        No task is kept in memory that is stored; where the target is asynchronous, all wait for the
        next `await`. Of each an id is kept, in sixteen bytes; with `dedup_key`, Celery's result,
        as the id is known later; and in a task Celery keeps the results, as children of that task,
        unless it is told `add_to_parent=False`.

        With no transaction to join, a portion at a time is durable. An error ends it, whoever
        raised it, and comes out as it is; what was sent before is in the transaction, as after a
        loop, or a note of the error says why it is not. Raises what apply_async raises.
        """
        return send_many(self._app, self._dispatch, task, calls, options)

    def _publish_by_producer(self, body: Any, **options: Any) -> None:
        """Store what somebody publishes with the producer that Celery would take from its pool."""
        # What is not given: an exchange and a routing key by default, and whether it must arrive.
        given = {k: v for k, v in options.items() if v is not None and v is not False}
        self.publish(None, body, **given)

    @overload
    def cancel(self, target: SyncTarget | str, task_id: str) -> bool: ...
    @overload
    def cancel(self, target: AsyncTarget, task_id: str) -> Awaitable[bool]: ...
    def cancel(self, target: object, task_id: str) -> bool | Awaitable[bool]:
        """Take back a message that is still pending, in the transaction of `target`.

        Returns False where it is too late or the id is unknown; for an asynchronous target, an
        awaitable of that.
        """
        rows = target_for(target, self._dispatch.schema).fetch(CANCEL, task_id)
        return _first(rows) if isinstance(rows, list) else _afirst(rows)


def _first(rows: Rows) -> bool:
    return bool(rows[0][0])


async def _afirst(rows: Awaitable[Rows]) -> bool:
    return _first(await rows)
