"""The app that the end-to-end tests send with and an unmodified Celery worker runs.

`celery -A tests.end_to_end.tasks worker`: configured by the environment alone.
"""

import os
from typing import Any

from celery import Task

from celery_outbox import OutboxCelery

app = OutboxCelery("lab", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get("LAB_BROKER_URL"),
    result_backend=os.environ.get("LAB_RESULTS_URL"),
    result_extended=True,
)


@app.task
def add(x: int, y: int) -> int:
    """The sum of two numbers."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """The sum of a list: the body of a chord."""
    return sum(numbers)


@app.task
def fail(reason: str) -> None:
    """Always raises."""
    raise ValueError(reason)


@app.task(bind=True, max_retries=3)
def succeed_on(self: "Task[Any, Any]", attempt: int) -> int:
    """Retries itself until that attempt."""
    if self.request.retries < attempt:
        raise self.retry(countdown=0.05)
    return int(self.request.retries)


@app.task(bind=True)
def become(self: "Task[Any, Any]", x: int, y: int) -> Any:
    """Replaces itself by another task."""
    raise self.replace(add.s(x, y))


@app.task(bind=True)
def note(self: "Task[Any, Any]", *args: Any) -> str:
    """What links and errbacks leave behind: their own id."""
    return str(self.request.id)


@app.task(bind=True)
def arrived_with(self: "Task[Any, Any]") -> dict[str, Any]:
    """What the worker sees of its own message."""
    request = self.request
    return {"eta": request.eta, "headers": request.headers, "queue": request.delivery_info}
