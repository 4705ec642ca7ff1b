"""What a worker itself sends: the continuation of a canvas, and its task's retry or replacement.

These are no decision of the task's transaction: a retry is sent because the transaction fails. They
become rows of their own where a database URL is configured, and else go to the broker as in Celery.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import Celery

_continuing: ContextVar[bool] = ContextVar("celery_outbox_continuing", default=False)


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


def goes_on(app: Celery, message: Any) -> bool:
    """Tell whether `message` is the running task's retry or replacement, under its own id."""
    running = app.current_worker_task
    return running is not None and (is_retry(running, message) or is_replacement(running, message))


def may_send_directly(app: Celery, message: Any) -> bool:
    """Tell whether a worker without a database URL sends `message` as Celery would."""
    running = app.current_worker_task
    if running is None:  # at most the main process, on behalf of a child that was lost
        return _continuing.get()
    return (
        _continuing.get()
        or running.name.startswith("celery.")  # celery.chord_unlock and its like
        or is_retry(running, message)
        or is_replacement(running, message)
    )
