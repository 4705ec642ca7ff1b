"""Says in `inbox.worker` which queues a worker consumes, which tasks it knows, and that it lives.

On a thread of the worker's main process, with a connection of its own: no task waits for it, and a
database that is away costs a warning. A worker that ends takes its row along; one that is killed
counts as alive until its last beat is `ALIVE_SECONDS` old, by the database's clock.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps
from celery.bootsteps import CLOSE  # type: ignore[attr-defined]  # its stubs lack it
from celery.utils.log import get_logger

from celery_inbox.sources import connect_by
from celery_inbox.target import Row, Statement
from celery_inbox.targets import opened
from celery_inbox.transient import UNDEFINED_FUNCTION, UNDEFINED_SCHEMA, sqlstate

logger = get_logger(__name__)

#: Between two beats, which is also how soon a queue or task that was added is told of.
BEAT_SECONDS = 10.0
#: How long a worker counts as alive after a beat: two may fail.
ALIVE_SECONDS = 35.0
#: How long the end of a worker waits for its farewell.
FAREWELL_SECONDS = 2.0

_ANNOUNCE = "SELECT inbox.announce(%s::text, %s::json, %s::float8)"
_BEAT = "SELECT inbox.beat(%s::text, %s::float8)"
_LEAVE = "SELECT inbox.leave(%s::text)"


def announce(app: Celery, connect: Any) -> None:
    """Have the app's workers say which queues they consume and which tasks they know.

    The relay and its operators then know of tasks that no worker of their queue knows.

    * `connect`: as for `idempotent`. It is used in the worker's main process, so a pool must be
        open there; a database URL always works.
    """
    step = type("Announce", (_Announce,), {"connect": staticmethod(connect_by(connect))})
    app.steps["consumer"].add(step)


class Announcer:
    """Tells the database what `look` returns: a worker's queues and tasks, or None for neither."""

    def __init__(
        self,
        connect: Callable[[], Any],
        node: str,
        look: Callable[[], dict[str, list[str]] | None],
    ) -> None:
        self._connect, self._node, self._look = connect, node, look
        self._said: str | None = None
        self._failing = False
        self._ending = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="celery-inbox-worker", daemon=True)

    def start(self) -> None:
        """Begin, on a thread that ends with the process."""
        self._thread.start()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def end(self) -> None:
        """Say farewell and end; wait a moment for that."""
        self._ending = True
        self.wake()
        self._thread.join(FAREWELL_SECONDS)

    def _run(self) -> None:
        while not self._ending:
            self._tell(self._look())
            self._woken.wait(BEAT_SECONDS)
            self._woken.clear()
        self._tell(None)

    def _tell(self, seen: dict[str, list[str]] | None) -> None:
        said = None if seen is None else json.dumps(seen)
        try:
            if said is None:
                if self._said is not None:
                    self._run_one(Statement(_LEAVE, (self._node,)))
            elif said != self._said or not self._beat():
                self._run_one(Statement(_ANNOUNCE, (self._node, said, ALIVE_SECONDS)))
        except Exception as error:
            self._warn(error)
        else:
            self._said, self._failing = said, False

    def _beat(self) -> bool:
        row = self._run_one(Statement(_BEAT, (self._node, ALIVE_SECONDS)))
        return bool(row and row[0])

    def _run_one(self, statement: Statement) -> Row | None:
        with opened(self._connect) as target:
            return target.alone(statement)

    def _warn(self, error: Exception) -> None:
        """Once for each outage; what the driver says may have the address, and no row."""
        if self._failing:
            return
        self._failing = True
        why: object = type(error).__name__
        if sqlstate(error) in (UNDEFINED_FUNCTION, UNDEFINED_SCHEMA):
            why = "the database has no inbox.announce: run `outbox-migrate up` on it"
        logger.warning(
            "inbox: this worker cannot say in inbox.worker which tasks it knows (%s)", why
        )


class _Announce(bootsteps.StartStopStep):
    """The announcer of one worker; a worker that has lost the broker consumes nothing."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    connect: Callable[[], Any]
    _announcer: Announcer | None = None
    _consumer: Any = None

    def start(self, parent: Any) -> None:
        """The worker consumes."""
        self._consumer = parent
        if self._announcer is None:
            self._announcer = Announcer(self.connect, parent.hostname, self._look)
            self._announcer.start()
        else:
            self._announcer.wake()

    def stop(self, parent: Any) -> None:
        """It does not, until it has the broker again, or for good."""
        self._consumer = None
        if self._announcer is None:
            return
        if parent.blueprint.state == CLOSE:
            self._announcer.end()
            self._announcer = None
        else:
            self._announcer.wake()

    terminate = stop

    def _look(self) -> dict[str, list[str]] | None:
        consumer = self._consumer
        tasks = getattr(consumer, "task_consumer", None)
        if tasks is None:
            return None
        return {
            "queues": sorted(queue.name for queue in list(tasks.queues)),
            "tasks": sorted(consumer.strategies),
        }
