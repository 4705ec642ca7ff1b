"""Has an app's workers leave a receipt of each message: how the work on it ended.

Celery's signals and requests tell of every ending in the main process of a worker; `recorder`
writes them down beside the work.
"""

from typing import Any

from celery import Celery, Task, bootsteps, signals
from celery.utils.log import get_logger
from celery.worker import state

from celery_inbox import endings
from celery_inbox.announcing import announce
from celery_inbox.endings import Ending
from celery_inbox.recorder import Recorder
from celery_inbox.sources import Connect, connect_by

logger = get_logger(__name__)


def receipts(app: Celery, connect: Any) -> None:
    """Have the workers of `app` record how every message ended, in ``inbox.receipt``.

    That a task succeeded, failed (with the exception's name, never its text), was rejected,
    revoked, ignored or retried, was lost with its process, or that the worker did not know the task
    or could not decode the message. It is written in batches, half a second later, from the
    worker's main process: no task waits for it or fails over it. ``outbox-relay audit`` then names
    the messages that were sent and have no receipt. They announce themselves as well, as with
    `announce`.

    * `connect`: as for `idempotent`: a database URL, a pool, an engine, an alias, or a function
        that connects.
    """
    announce(app, connect)
    keeper = Keeper(app, connect_by(connect))
    signals.task_revoked.connect(keeper.on_revoked, weak=False)
    signals.task_unknown.connect(keeper.on_unknown, weak=False)
    signals.task_rejected.connect(keeper.on_rejected, weak=False)
    signals.worker_shutdown.connect(keeper.on_shutdown, weak=False)
    app.steps["consumer"].add(keeper.step())


class Keeper:
    """What the workers of one app do about receipts; nothing in any other process."""

    def __init__(self, app: Celery, connect: Connect) -> None:
        self._app = app
        self._recorder = Recorder(connect, self._held)

    def step(self) -> type[bootsteps.StartStopStep]:
        """A part of the worker: begins with it, and hears of what cannot be decoded."""
        keeper = self

        class KeepReceipts(bootsteps.StartStopStep):
            """Begins to write as the worker connects for the first time."""

            requires = ("celery.worker.consumer.connection:Connection",)

            def __init__(self, parent: Any, **options: Any) -> None:
                super().__init__(parent, **options)
                given_up = parent.on_decode_error

                def on_decode_error(message: Any, error: Exception) -> None:
                    given_up(message, error)
                    keeper.on_undecodable(message, error)

                parent.on_decode_error = on_decode_error
                make_strategies = parent.update_strategies

                def update_strategies() -> None:
                    keeper.follow()
                    make_strategies()

                parent.update_strategies = update_strategies

            def start(self, parent: Any) -> None:
                """Called again each time it connects."""
                keeper.begin(parent.hostname)

        return KeepReceipts

    def begin(self, worker: str) -> None:
        """Begin to write, if that has not begun."""
        self._recorder.start(worker, self._app.tasks)

    def follow(self) -> None:
        """Have the requests of all tasks tell of their endings, before there are any."""
        tasks = [*self._app.tasks.values()]
        endings.follow_tasks(tasks, self._recorder.note)
        if any(_has_own_strategy(task) for task in tasks):
            signals.task_received.connect(self.on_received, weak=False)

    def on_received(self, sender: Any, request: Any, **_: object) -> None:
        """A message has become a request, perhaps of a kind that a strategy has of its own."""
        if sender.app is not self._app:
            return
        try:
            endings.follow(request, self._recorder.note)
        except (AttributeError, TypeError):  # a strategy of its own, with requests of its own
            logger.warning(
                "receipts: %s has requests of a kind that tells of no ending: it leaves none",
                request.name,
            )

    def on_revoked(
        self, sender: Any, request: Any, terminated: Any, expired: Any, **_: object
    ) -> None:
        """Before it began, or while it ran."""
        if sender.app is self._app:
            reason = "expired" if expired else "terminated" if terminated else None
            self._recorder.note(endings.revoked(request, sender.name, reason))

    def on_unknown(self, sender: Any, message: Any, **_: object) -> None:
        """A task that is not registered here."""
        if sender.app is self._app:
            self._note_unreadable(message, "unregistered", "NotRegistered")

    def on_rejected(self, sender: Any, message: Any, exc: Any, **_: object) -> None:
        """No message of Celery's, or one that this worker may not read."""
        if sender.app is self._app:
            self.on_undecodable(message, exc)

    def on_undecodable(self, message: Any, error: BaseException | None) -> None:
        """Thrown away, or rejected."""
        name = endings.name_of(error) if error else None
        self._note_unreadable(message, "undecodable", name)

    def on_shutdown(self, sender: Any, **_: object) -> None:
        """The last receipts, once the pool has stopped."""
        if sender.app is self._app:
            self._recorder.stop()

    def _note_unreadable(self, message: Any, outcome: str, error: str | None) -> None:
        ending = endings.unreadable(message, outcome, error)
        if ending is not None:
            self._recorder.note(ending)

    def _held(self, older_than: float) -> list[Ending]:
        """What this worker has at hand, by now for some time."""
        found = (endings.held(request, older_than) for request in [*state.requests.values()])
        return [ending for ending in found if ending is not None]


def _has_own_strategy(task: Any) -> bool:
    """Whether its requests may be made in another way than Celery's."""
    own_start = type(task).start_strategy is not Task.start_strategy
    return own_start or task.Strategy != Task.Strategy
