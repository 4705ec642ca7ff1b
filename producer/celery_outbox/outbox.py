"""`app.outbox`: finds out where a send goes, and does it. No message goes another way."""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final, TypeVar, overload

from celery import Celery
from kombu import Exchange, Queue

from celery_outbox import settings, worker
from celery_outbox.block import Transaction, Using, current_block
from celery_outbox.capture.channel import CapturingProducer, OutboxProducer
from celery_outbox.capture.event import event, name_of
from celery_outbox.decision import ENDINGS, Destination, Origin, Scope, destination, origin_of
from celery_outbox.errors import NoTransaction
from celery_outbox.many.sending import send_many
from celery_outbox.many.storing import Buffered, Joined, Portions, Storing, finish_earlier
from celery_outbox.message import Alike, Message, Parcel
from celery_outbox.statements.commands import Outcome, Rows
from celery_outbox.statements.insert import CANCEL
from celery_outbox.stores.database import Database
from celery_outbox.targets.target import AsyncTarget, SyncTarget, Target, target_for

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Decision:
    """Where one send goes."""

    origin: Origin
    destination: Destination
    #: What outbox= named, or else the block that is joined.
    target: object | None
    block: Using[Any] | None
    #: Whether the delivery of the running task can go back to its queue.
    requeue: bool = False


#: Told of each message before it goes where that was decided: nobody, but in tests.
listeners: Final[list[Callable[[Celery, Decision, Parcel], None]]] = []


class Outbox:
    """What an application sends through. One per app, as `app.outbox`; threads share it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._main_process: int | None = None
        self._warned = False
        #: What Celery is given instead of a producer with a connection.
        self.producer = OutboxProducer(app, self._publish_by_producer)
        #: What hands back a message that is finished.
        self.capturing = CapturingProducer(app)

    def begin_work(self) -> None:
        """Take note that this is the main process of a worker, or beat, and check the settings.

        Raises InvalidSetting.
        """
        self._main_process = os.getpid()
        self._database.check()
        settings.max_body(self._app)

    def using(self, target: T) -> Using[T]:
        """Return a block in which every task sent becomes a row in the transaction of `target`.

        For `with`, and `async with` where the target is asynchronous. The transaction is yours: it
        is not begun, committed or rolled back here. The rows are in it at the latest when the
        block ends without an error. `target` is a connection of psycopg or psycopg2, a Session or
        Connection of SQLAlchemy, the asynchronous ones included, or the alias of a Django database.

        Raises UnusableTarget on entry, such as for a connection in autocommit mode.
        """
        return Using(target, target_for(target, self._schema))

    def transaction(self, target: T) -> Transaction[T]:
        """Return a block like that of `using`, which is a transaction as well.

        It begins one, commits it, or rolls it back after an error; within another transaction it
        is a savepoint.
        """
        return Transaction(target, target_for(target, self._schema))

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
        decision = self._decide(name, Origin.USER, target)
        message = event(
            self._app,
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
        return self.carry_out(decision, message).pending_id

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
        return send_many(self._app, task, calls, options)

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
        rows = target_for(target, self._schema).fetch(CANCEL, task_id)
        return _first(rows) if isinstance(rows, list) else _afirst(rows)

    def decide(self, name: str, task: Any, target: object | None) -> Decision:
        """Decide where a task goes: `task` is what Celery's create_task_message returned.

        `target` is that of the call, if any. Raises NoTransaction or AmbiguousBlock.
        """
        is_main = self._main_process == os.getpid()
        process, running = worker.process_of(self._app, is_main=is_main)
        origin = origin_of(process, running, task, follows=worker.is_continuing())
        decision = self._decide(name, origin, target)
        if running is None or not running.acks_late:
            return decision
        # Within its body a task can be rejected; after it, only by the parent of its process.
        return replace(decision, requeue=origin in ENDINGS or not is_main)

    def _decide(self, name: str, origin: Origin, target: object | None) -> Decision:
        block = None
        if origin is not Origin.RETRY and target is None:
            block = current_block()
        scope = Scope.NONE if target is None and block is None else Scope.TRANSACTION
        if block is not None and block.commits_replacement:
            scope = Scope.COMMITTING
        where = destination(origin, scope, has_database=self.has_database)
        if where is Destination.REFUSE:
            raise NoTransaction.about(task=name)
        return Decision(origin, where, target, block)

    def carry_out(self, decision: Decision, message: Parcel) -> Outcome:
        """Put or store a message where it was decided to go.

        Raises OutboxClosed, UnusableTarget, DatabaseUnavailable, OutboxNotReady, RowRefused or
        InvalidSetting.
        """
        finish_earlier()
        for tell in listeners:
            tell(self._app, decision, message)
        match decision:
            case Decision(destination=Destination.STORE):
                outcome = self._database.store(message)
                if not self._database.uses_django:
                    self._warn_once(message.task)
                return outcome
            case Decision(destination=Destination.STORE_APART):
                store = partial(self._database.store_apart, message)
                return worker.keep_trying(store, message.task, requeue=decision.requeue)
            case Decision(block=Using() as block, origin=origin):
                outcome = block.put(message)
                block.replaced = block.replaced or origin is Origin.REPLACEMENT
                return outcome
            case _:
                return target_for(decision.target, self._schema).put_alone(message)

    def storing(self, decision: Decision, like: Message, *, inert: bool) -> Storing:
        """Return what takes messages that are like one which was decided on.

        `inert` says that none of the caller's code runs between two of them.
        """
        if decision.destination is not Destination.JOIN:
            return Portions(like, self._database, inert=inert)
        block = decision.block

        def target() -> Target:
            """What a proxy stands for can be another one each time."""
            return block.target if block else target_for(decision.target, self._schema)

        def put(alike: Alike) -> Outcome:
            if block is not None:
                block.check_open(alike.task)
            return target().put_many(alike)

        def flush() -> None:
            target().flush()

        if not target().buffers:
            return Portions(like, Joined(put, flush), inert=inert)
        # A block inserts as it ends.
        return Buffered(like, put, (lambda: None) if block else flush)

    def is_heard(self) -> bool:
        """Whether somebody is told of each message."""
        return bool(listeners)

    @contextmanager
    def storing_in(self, database: Database) -> Iterator[None]:
        """Have `database` take what joins no transaction, in the whole process. For tests."""
        before, self._database = self._database, database
        try:
            yield
        finally:
            self._database = before

    def _warn_once(self, task: str) -> None:
        """Warn of the first message that may have been meant for a transaction."""
        at_work = self._main_process is not None or self._app.current_worker_task is not None
        if not (at_work or self._warned):
            self._warned = True
            logger.warning(
                "%s was sent without a transaction: it is stored at once, in one of its own. If"
                " it belongs to data of yours, send it within app.outbox.using(connection). Without"
                " OUTBOX_DATABASE_URL, which workers and beat need, this would be an error",
                task,
            )

    @cached_property
    def _schema(self) -> str:
        return settings.schema(self._app)

    @cached_property
    def _database(self) -> Database:
        return Database(self._app, self._schema)

    def has_database(self) -> bool:
        """Whether messages without a transaction can be stored in one of their own."""
        return self._database.is_configured()


def _first(rows: Rows) -> bool:
    return bool(rows[0][0])


async def _afirst(rows: Awaitable[Rows]) -> bool:
    return _first(await rows)
