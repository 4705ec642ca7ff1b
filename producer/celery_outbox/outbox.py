"""`app.outbox`: decides which transaction a message joins. There is no silent way around one."""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from celery import Celery
from kombu import Exchange, Queue

from celery_outbox import capture, settings, worker
from celery_outbox.block import Transaction, Using, current_block
from celery_outbox.capture import CapturingProducer, OutboxProducer
from celery_outbox.dedup import Dedup
from celery_outbox.errors import InvalidSetting, NoTransaction, UnsupportedOption
from celery_outbox.event import event, name_of
from celery_outbox.insert import CANCEL
from celery_outbox.message import Message
from celery_outbox.target import AsyncTarget, Rows, SyncTarget, target_for

if TYPE_CHECKING:
    from celery_outbox.standalone import Standalone

logger = logging.getLogger(__name__)

T = TypeVar("T")
Put = Callable[[Message], None]


class Outbox:
    """What an application sends through. One per app, as `app.outbox`; threads share it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._standalone: dict[str, Standalone] = {}  # of the URL in force
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
        _ = self._schema, self._put_unasked, self._put_durably

    @property
    def _in_main_process(self) -> bool:
        return self._main_process == os.getpid()

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
        put = self._place(name, target)
        if put is None:
            raise NoTransaction.about(task=name)
        dedup = None if dedup_key is None else Dedup(dedup_key)
        message = event(
            self._app,
            name,
            payload,
            exchange=exchange,
            headers=headers or {},
            mandatory=mandatory,
            declare=declare,
            ordering_key=ordering_key,
            dedup=dedup,
            options={**options, "routing_key": routing_key},
        )
        put(message)
        return (dedup and dedup.first) or message.message_id

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

    def place_of_task(
        self, name: str, task: Any, target: object | None, keys: capture.Keys
    ) -> Put | None:
        """Return what takes a task, or None where a worker sends it as Celery would.

        `task` is what Celery's create_task_message returned, `target` that of the call, if any.
        Raises NoTransaction, OutboxClosed, UnusableTarget or UnsupportedOption.
        """
        running = worker.task_at_work(self._app)
        if running is not None and self._is_its_workers(running, task, target):
            # Within its body a task can be rejected; after it, only by the parent of its process.
            within = worker.goes_on(self._app, task)
            put = self._put_persistently(running, requeue=within or not self._in_main_process)
        else:
            put = self._place(name, target)
        if put is None and not worker.may_send_directly(
            self._app, task, in_main_process=self._in_main_process
        ):
            raise NoTransaction.about(task=name)
        if put is None and keys.any:
            raise UnsupportedOption.about(
                task=name,
                option="ordering_key= or dedup_key=",
                reason="this worker has no OUTBOX_DATABASE_URL and sends it directly",
            )
        return put

    def _is_its_workers(self, running: Any, task: Any, target: object | None) -> bool:
        """Tell whether the worker of `running` itself sends `task`, whatever transaction is open.

        What ends a task must not be rolled back by the exception that ends it.
        """
        if worker.is_retry(running, task):
            return True
        if worker.is_replacement(running, task):
            return not self._commits_replacement(target)
        return target is None and current_block() is None and worker.continues(running)

    def _place(self, name: str, target: object | None) -> Put | None:
        if target is not None:
            return partial(self._put_in, target)
        block = current_block()
        if block is None:
            return self._put_unasked
        block.check_open(name)
        return block.put

    def _commits_replacement(self, target: object | None) -> bool:
        """Tell whether the block in force commits a replacement, and note there is one."""
        block = current_block() if target is None else None
        if block is None or not block.commits_replacement:
            return False
        block.replaced = True
        return True

    def _put_in(self, target: object, message: Message) -> None:
        target_for(target, self._schema).put_alone(message)

    @cached_property
    def _schema(self) -> str:
        return settings.schema(self._app)

    @property
    def has_database(self) -> bool:
        """Whether messages without a transaction can be stored in one of their own."""
        return (
            settings.names_database_url(self._app) or settings.django_alias(self._app) is not None
        )

    @property
    def _put_unasked(self) -> Put | None:
        """What takes messages where nobody named a transaction."""
        if alias := settings.django_alias(self._app):
            from celery_outbox.django_target import DjangoTarget

            return DjangoTarget(alias, self._schema).put_unasked
        put = self._put_standalone
        return put and partial(self._put_warily, put)

    def _put_warily(self, put: Put, message: Message) -> None:
        """Store a message, and warn of the first one that may have been meant for a transaction."""
        at_work = self._main_process is not None or self._app.current_worker_task is not None
        if not (at_work or self._warned):
            self._warned = True
            logger.warning(
                "%s was sent without a transaction: it is stored at once, in one of its own. If"
                " it belongs to data of yours, send it within app.outbox.using(connection). Without"
                " OUTBOX_DATABASE_URL, which workers and beat need, this would be an error",
                message.task,
            )
        put(message)

    def _put_persistently(self, running: Any, *, requeue: bool) -> Put | None:
        """Return what takes what the worker of `running` itself sends."""
        if not self.has_database:
            return None

        def store(message: Message) -> None:
            put = self._put_durably
            assert put is not None
            put(message)

        return lambda message: worker.persistently(
            partial(store, message), running, requeue=requeue
        )

    @property
    def _put_durably(self) -> Put | None:
        """What takes messages that no transaction in progress may roll back."""
        alias = settings.django_alias(self._app)
        if alias is None or self._app.conf.get("outbox_database_url"):
            return self._put_standalone
        from celery_outbox.django_target import DjangoTarget

        return DjangoTarget(alias, self._schema).put_durably

    @property
    def _put_standalone(self) -> Put | None:
        url = settings.database_url(self._app)
        if url is None:
            return None
        by_url = self._standalone
        if url not in by_url:
            try:
                from celery_outbox.standalone import Standalone
            except ImportError as error:
                raise InvalidSetting.about(
                    setting="OUTBOX_DATABASE_URL (outbox_database_url)",
                    problem=f"needs psycopg: pip install 'celery-outbox[psycopg]' ({error})",
                ) from error

            # Threads that come here at one moment get the same one: a second would connect again.
            by_url = self._standalone = {url: by_url.setdefault(url, Standalone(url, self._schema))}
        return by_url[url].put


def _first(rows: Rows) -> bool:
    return bool(rows[0][0])


async def _afirst(rows: Awaitable[Rows]) -> bool:
    return _first(await rows)
