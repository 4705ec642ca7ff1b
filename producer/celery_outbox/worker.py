"""What a worker itself sends: the continuation of a canvas, and its task's retry or replacement.

These are no decision of the task's transaction: a retry is sent because the transaction fails. They
become rows of their own where a database URL is configured, and else go to the broker as in Celery.
Nobody would send them again, so a database that is away is waited for, and in the end the delivery
goes back to its queue: never around the outbox.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from time import monotonic, sleep
from typing import Any, Final

from celery import Celery
from celery.exceptions import Reject, SoftTimeLimitExceeded

from celery_outbox.errors import RowRefused

logger = logging.getLogger(__name__)

#: No further attempt to store what a worker itself sends is begun after this many seconds.
PATIENCE: Final = 30.0
#: Those of Celery's own tasks that send others. Not celery.map and its like, which run your code.
CANVAS_TASKS: Final = frozenset({"celery.chord_unlock", "celery.chord", "celery.group"})

_continuing: ContextVar[bool] = ContextVar("celery_outbox_continuing", default=False)
_in_errbacks: ContextVar[bool] = ContextVar("celery_outbox_in_errbacks", default=False)


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


@contextmanager
def continuing_canvas() -> Iterator[None]:
    """Mark what is sent inside as the continuation of the canvas of the task that just ran."""
    token = _continuing.set(True)
    try:
        yield
    finally:
        _continuing.reset(token)


def is_retry(running: Any, message: Any) -> bool:
    """Tell whether `message` is the running task's own retry()."""
    facts = message.headers if "id" in message.headers else message.body  # task protocol 1
    return bool(
        facts["id"] == running.request.id
        and (facts["retries"] or 0) > (running.request.retries or 0)
    )


def is_replacement(running: Any, message: Any) -> bool:
    """Tell whether `message` is part of the running task's own replace()."""
    nesting = message.headers.get("replaced_task_nesting") or 0
    if message.headers.get("task") == "celery.chord_unlock":
        # What unlocks a chord carries no nesting of its own, but the chord's body, which does.
        (_, chord_body, *_), *_ = message.body
        nesting = chord_body["options"].get("replaced_task_nesting") or 0
    return bool(nesting > (running.request.get("replaced_task_nesting") or 0))


def continues(running: Any) -> bool:
    """Tell whether what is sent now continues a canvas."""
    return _continuing.get() or running.name in CANVAS_TASKS


def task_at_work(app: Celery) -> Any | None:
    """Return the task that a worker is running here; a task that runs eagerly has no worker."""
    running = app.current_worker_task
    return None if running is None or running.request.is_eager else running


def persistently(store: Callable[[], None], running: Any, *, requeue: bool) -> None:
    """Store what the worker of `running` itself sends, with pauses while that fails.

    In the end the delivery goes back to its queue, where it can and `requeue` says it may.
    """
    give_up = monotonic() + PATIENCE
    for number in count():
        try:
            sleep(_pause(number))
            store()
        except RowRefused:  # the message's own fault: no later attempt would do
            raise
        except Exception as error:
            if number == 0:
                problem = type(error).__name__
                logger.warning("%s: what follows is not stored yet (%s)", running.name, problem)
            if monotonic() < give_up and not isinstance(error, SoftTimeLimitExceeded):
                continue
            if not (requeue and running.acks_late):  # acknowledged: there is nothing to give back
                raise
            reason = f"the outbox cannot store what follows ({type(error).__name__})"
            raise Reject(reason, requeue=True) from error
        else:
            return


def _pause(number: int) -> float:
    """Return the seconds before an attempt (0, 1, ...): doubling, jittered, at most one."""
    return number and random.uniform(0.5, 1.0) * min(1.0, 0.05 * 2.0**number)


def goes_on(app: Celery, message: Any) -> bool:
    """Tell whether `message` is the running task's retry or replacement, under its own id."""
    running = app.current_worker_task
    return running is not None and (is_retry(running, message) or is_replacement(running, message))


def may_send_directly(app: Celery, message: Any, *, in_main_process: bool) -> bool:
    """Tell whether a worker without a database URL sends `message` as Celery would."""
    if app.current_worker_task is None:  # at most on behalf of a child that was lost
        return in_main_process and _continuing.get()
    running = task_at_work(app)
    return running is not None and (
        continues(running) or is_retry(running, message) or is_replacement(running, message)
    )
