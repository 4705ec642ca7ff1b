"""An app for real workers that leave receipts, with a task for each way to end."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore, Reject
from celery.worker import strategy

from celery_inbox import receipts

app = Celery("leaving", broker=os.environ.get("LEAVING_BROKER", "memory://"), set_as_current=False)
app.conf.task_acks_late = os.environ.get("LEAVING_ACKS") == "late"
app.conf.task_reject_on_worker_lost = app.conf.task_acks_late
app.conf.broker_connection_retry_on_startup = True
if os.environ.get("LEAVING_DATABASE"):
    receipts(app, os.environ["LEAVING_DATABASE"])


class CannotBePickled(Exception):
    """Needs more than its text."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("secret")
        self.lock = (one, other, lambda: None)


@app.task
def succeed() -> str:
    """Return."""
    return "secret"


@app.task
def fail() -> None:
    """Raise."""
    raise LookupError("secret")


@app.task
def fail_oddly() -> None:
    """Raise what no process can tell another."""
    raise CannotBePickled(1, 2)


@app.task
def reject() -> None:
    """Have the message thrown away."""
    raise Reject("secret", requeue=False)


@app.task
def ignore() -> None:
    """End in nothing."""
    raise Ignore


@app.task(bind=True, max_retries=5)
def third_time(self: Any) -> None:
    """Succeed at the third run."""
    if self.request.retries < 2:
        raise self.retry(countdown=0)


@app.task(bind=True)
def replaced(self: Any) -> None:
    """Go on as another task, under the same id."""
    raise self.replace(succeed.s())


@app.task
def die() -> None:
    """Take the process along."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(time_limit=1)
def too_slow() -> None:
    """Take longer than it may."""
    time.sleep(60)


@app.task
def wait(file: str) -> None:
    """Run until there is that file; meanwhile another one says in which process."""
    Path(f"{file}.running").write_text(str(os.getpid()))
    while not os.path.exists(file):  # noqa: PTH110 - as cheap as can be
        time.sleep(0.02)


def own_requests(task: Any, app: Any, consumer: Any) -> Any:
    """A strategy that makes its requests as it likes, whatever the task says of them."""
    said, task.Request = task.Request, "celery.worker.request:Request"
    handler = strategy.default(task, app, consumer)
    task.Request = said
    return handler


@app.task(Strategy=f"{__name__}:own_requests")
def its_own_way() -> None:
    """Return, having come by that strategy."""


@app.task(Strategy=f"{__name__}:own_requests")
def fail_its_own_way() -> None:
    """Raise, having come by that strategy."""
    raise LookupError("secret")
