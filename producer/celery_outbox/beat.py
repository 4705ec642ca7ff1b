"""An outage of the outbox's database uses up no run of beat: what is due is sent once it is back.

Celery's Scheduler counts a run before it sends, so that one whose send fails is over: an hourly
entry would come an hour later, one that runs once never. Here a send that fails for want of the
database is taken out of the count, and the scheduler looks again after a pause.
"""

import heapq
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from time import monotonic
from typing import Any, Final

from celery.beat import SchedulingError, event_t
from kombu.utils.uuid import uuid

from celery_outbox.errors import DatabaseUnavailable, OutboxNotReady
from celery_outbox.outbox import Outbox

logger = logging.getLogger(__name__)

#: Seconds between two attempts while the database is away.
PAUSE: Final = 5.0


class Wait:
    """What one scheduler knows of an outage."""

    def __init__(self) -> None:
        self._until: float | None = None
        #: The scheduler's max_interval without an outage.
        self._usual = 0.0
        #: Of each entry that was not sent: an attempt whose outcome is unknown may have stored it.
        self.task_ids: dict[str, str] = {}
        #: The entry whose run was counted in this tick, and not sent.
        self.unsent: Any = None

    def left(self) -> float:
        """Return the seconds until the next attempt, 0 where nothing is waited for."""
        return 0.0 if self._until is None else max(0.0, self._until - monotonic())

    def begin(self, scheduler: Any, entry: Any, error: BaseException) -> None:
        """Wait for the database, of which this send was the first to notice, or one more."""
        if self._until is None:
            reason = f"{type(error).__name__}: {error}"
            logger.warning(
                "%s is due and will be sent once it can be stored: %s", entry.name, reason
            )
            self._usual = scheduler.max_interval
        self._until = monotonic() + PAUSE
        scheduler.max_interval = min(
            self._usual, PAUSE
        )  # a tick of its own may look at nothing else

    def end(self, scheduler: Any, entry: Any) -> None:
        """Go on as usual."""
        self.task_ids.pop(entry.name, None)
        if self._until is not None:
            logger.info("%s is stored: what is due is sent again", entry.name)
            self._until, scheduler.max_interval = None, self._usual


def _wait_of(scheduler: Any) -> Wait | None:
    """Return what a scheduler waits for, if its app has an outbox."""
    if not isinstance(getattr(scheduler.app, "outbox", None), Outbox):
        return None
    found: Wait = vars(scheduler).setdefault("outbox_wait", Wait())
    return found


def counting_when_sent(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have Scheduler.apply_async() count a run once it is sent, or cannot be for its own fault."""

    @wraps(original)
    def apply_async(
        self: Any, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        wait = _wait_of(self)
        if wait is None:
            return original(self, entry, producer=producer, advance=advance, **kwargs)
        if wait.left():
            raise SchedulingError(f"{entry.name} waits, as what was to be sent before it does")
        wait.unsent = None if advance else entry  # which the caller has counted
        given = entry.options
        task_id = wait.task_ids.setdefault(entry.name, uuid())
        entry.options = {"task_id": task_id, **given}
        try:
            result = original(self, entry, producer=producer, advance=False, **kwargs)
        except SchedulingError as error:
            reason = error.__context__
            if reason is not None and _is_away(reason):
                wait.begin(self, entry, reason)
                raise
            _count(self, wait, entry, advance=advance)
            raise
        finally:
            entry.options = given
        _count(self, wait, entry, advance=advance)
        return result

    return apply_async


def _count(scheduler: Any, wait: Wait, entry: Any, *, advance: bool) -> None:
    wait.unsent = None
    wait.end(scheduler, entry)
    if advance:
        scheduler.reserve(entry)


def pausing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have Scheduler.tick() give back the run of what it could not send, and look again soon."""

    @wraps(original)
    def tick(self: Any, *args: Any, **kwargs: Any) -> Any:
        wait = _wait_of(self)
        if wait is None:
            return original(self, *args, **kwargs)
        if left := wait.left():
            return left
        try:
            interval = original(self, *args, **kwargs)
        finally:  # also as beat is told to end, before it writes down what it has run
            unsent, wait.unsent = wait.unsent, None
            if unsent is not None:
                _give_back(self, unsent)
        return wait.left() or interval

    return tick


def _give_back(scheduler: Any, entry: Any) -> None:
    """Undo the count of a run in all places where the scheduler has it."""
    if model := getattr(entry, "model", None):  # of django-celery-beat, which counts in the model
        model.last_run_at, model.total_run_count = entry.last_run_at, entry.total_run_count
        scheduler._dirty.add(entry.name)
    else:
        scheduler.schedule[entry.name] = entry
    others = [event for event in scheduler._heap or () if event.entry.name != entry.name]
    if scheduler._heap is not None:
        scheduler._heap[:] = [*others, event_t(scheduler._when(entry, 0), 5, entry)]
        heapq.heapify(scheduler._heap)
    if not scheduler._tasks_since_sync:  # the count was just written down
        with suppress(Exception):  # as it is anyway every three minutes
            scheduler._do_sync()


def _is_away(error: BaseException) -> bool:
    """Tell whether a send failed for want of the database, and not for the entry's own fault."""
    if isinstance(error, DatabaseUnavailable | OutboxNotReady):
        return True
    django: Any = sys.modules.get("django.db")
    return django is not None and isinstance(error, django.OperationalError | django.InterfaceError)
