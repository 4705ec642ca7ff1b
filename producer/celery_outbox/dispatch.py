"""Where each message goes: found out once, then done. No message goes another way.

Not part of the public API. An app's code uses `app.outbox`; the parts of this package that stand in
for Celery's own ask `dispatch_of(app)`.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Final, cast

from celery import Celery

from celery_outbox import settings, worker
from celery_outbox.block import Using, current_block
from celery_outbox.capture.channel import CapturingProducer
from celery_outbox.decision import WITHIN_BODY, Destination, Origin, Scope, destination, origin_of
from celery_outbox.errors import NoTransaction
from celery_outbox.many.storing import Buffered, Joined, Portions, Storing, finish_earlier
from celery_outbox.message import Alike, Message, Parcel
from celery_outbox.statements.commands import Outcome
from celery_outbox.stores.database import Database
from celery_outbox.targets.target import Target, target_for

logger = logging.getLogger(__name__)


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


class Dispatch:
    """Decides where messages go, and sees them there. One per app; threads share it."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._main_process: int | None = None
        self._warned = False
        #: What hands back a message that is finished.
        self.capturing = CapturingProducer(app)

    def begin_work(self) -> None:
        """Take note that this is the main process of a worker, or beat, and check the settings.

        Raises InvalidSetting.
        """
        self._main_process = os.getpid()
        self._database.check()
        settings.max_body(self._app)

    def decide(self, name: str, task: Any, target: object | None) -> Decision:
        """Decide where a task goes: `task` is what Celery's create_task_message returned.

        `target` is that of the call, if any. Raises NoTransaction or AmbiguousBlock.
        """
        is_main = self._main_process == os.getpid()
        process, running = worker.process_of(self._app, is_main=is_main)
        origin = origin_of(process, running, task, follows=worker.is_continuing())
        decision = self._decided(name, origin, target)
        if running is None or not running.acks_late:
            return decision
        # Within its body a task can be rejected; after it, only by the parent of its process.
        return replace(decision, requeue=origin in WITHIN_BODY or not is_main)

    def decide_event(self, name: str, target: object | None) -> Decision:
        """Decide where a message goes that is no task. Raises NoTransaction or AmbiguousBlock."""
        return self._decided(name, Origin.USER, target)

    def _decided(self, name: str, origin: Origin, target: object | None) -> Decision:
        block = None
        if origin is not Origin.RETRY and target is None:
            block = current_block()
        scope = Scope.NONE if target is None and block is None else Scope.TRANSACTION
        committing = None if block is None else block.committing()
        if committing is not None:
            scope = Scope.COMMITTING
            if origin is Origin.REPLACEMENT:
                block = committing
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
                store = partial(self._database.store_once, cast(Message, message))
                return worker.keep_trying(store, message.task, requeue=decision.requeue)
            case Decision(block=Using() as block, origin=Origin.REPLACEMENT):
                return block.put_replacement(message)
            case Decision(block=Using() as block):
                return block.put(message)
            case _:
                return target_for(decision.target, self.schema).put_alone(message)

    def storing(self, decision: Decision, like: Message, *, inert: bool) -> Storing:
        """Return what takes messages that are like one which was decided on.

        `inert` says that none of the caller's code runs between two of them.
        """
        if decision.destination is not Destination.JOIN:
            return Portions(like, self._database, inert=inert)
        block = decision.block

        def target() -> Target:
            """What a proxy stands for can be another one each time."""
            return block.target if block else target_for(decision.target, self.schema)

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
    def schema(self) -> str:
        """The schema of the outbox's tables."""
        return settings.schema(self._app)

    @cached_property
    def _database(self) -> Database:
        return Database(self._app, self.schema)

    def has_database(self) -> bool:
        """Whether messages without a transaction can be stored in one of their own."""
        return self._database.is_configured()


def dispatch_of(app: Any) -> Dispatch:
    """Return the dispatch of an app that has an outbox."""
    found: Dispatch = app.outbox._dispatch
    return found
