"""What a worker itself sends: marked while Celery sends it, and tried until it is stored.

Nobody would send it again, so a database that is away is waited for, and in the end the delivery
goes back to its queue: never around the outbox.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from time import monotonic, sleep
from typing import Any, Final, TypeVar

from celery import Celery
from celery.exceptions import Reject, SoftTimeLimitExceeded

from celery_outbox.decision import Process
from celery_outbox.errors import RowRefused

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: No further attempt to store what a worker itself sends is begun after this many seconds.
PATIENCE: Final = 30.0
#: Seconds that two clocks may differ by over such a time, and more.
SLACK: Final = 5.0

_continuing: ContextVar[bool] = ContextVar("celery_outbox_continuing", default=False)
_in_errbacks: ContextVar[bool] = ContextVar("celery_outbox_in_errbacks", default=False)


@contextmanager
def continuing_canvas() -> Iterator[None]:
    """Mark what is sent inside as what follows the task that just ran."""
    token = _continuing.set(True)
    try:
        yield
    finally:
        _continuing.reset(token)


def is_continuing() -> bool:
    """Tell whether what is sent now follows a task."""
    return _continuing.get()


@contextmanager
def calling_errbacks() -> Iterator[None]:
    """Mark what runs inside as Celery's calls of the errbacks of a task that failed."""
    token = _in_errbacks.set(True)
    try:
        yield
    finally:
        _in_errbacks.reset(token)


def in_errbacks() -> bool:
    """Tell whether Celery is calling errbacks."""
    return _in_errbacks.get()


def process_of(app: Celery, *, is_main: bool) -> tuple[Process, Any]:
    """Return where this code runs, and the task that a worker runs here, if one does.

    A task that runs eagerly has no worker, whatever process it is in.
    """
    running = app.current_worker_task
    if running is None:
        return Process.MAIN if is_main else Process.OTHER, None
    return (Process.OTHER, None) if running.request.is_eager else (Process.TASK, running)


def keep_trying(store: Callable[[float], T], follows: str, *, requeue: bool) -> T:
    """Store what a worker itself sends, with pauses while that fails; `follows` is its task.

    `store` is told for how many seconds it was tried before: an attempt may have stored it although
    no answer came. In the end the delivery of that task goes back to its queue, where `requeue`
    says it can.
    """
    began = monotonic()
    give_up = began + PATIENCE
    attempts = count()
    while True:
        number = next(attempts)
        try:
            sleep(_pause(number))
            return store(number and monotonic() - began + SLACK)
        except RowRefused:  # the message's own fault: no later attempt would do
            raise
        except Exception as error:
            if number == 0:
                problem = type(error).__name__
                logger.warning("%s: what follows is not stored yet (%s)", follows, problem)
            if monotonic() < give_up and not isinstance(error, SoftTimeLimitExceeded):
                continue
            if not requeue:  # acknowledged: there is nothing to give back
                raise
            reason = f"the outbox cannot store what follows ({type(error).__name__})"
            raise Reject(reason, requeue=True) from error


def _pause(number: int) -> float:
    """Return the seconds before an attempt (0, 1, ...): doubling, jittered, at most one."""
    return number and random.uniform(0.5, 1.0) * min(1.0, 0.05 * 2.0**number)
