"""`celery -A tests.end_to_end.canvas.worker worker`: the worker of the line in CANVAS_PLAN."""

import json
import os
from typing import Any

from celery.signals import before_task_publish, task_postrun, task_retry

from tests.end_to_end.canvas.apps import Plan, make_app

app, journal = make_app(Plan(**json.loads(os.environ["CANVAS_PLAN"])))


@before_task_publish.connect
def count_sent(*_: Any, **__: Any) -> None:
    """What goes on with a canvas."""
    journal.sent()


@task_postrun.connect
def count_done(*_: Any, **__: Any) -> None:
    """Sent by Celery once all that follows has been sent."""
    journal.done()


@task_retry.connect
def note_stored(*_: Any, request: Any, **__: Any) -> None:
    """Sent by Celery once the state of what is retried is stored."""
    journal.stored(request.id, request.retries)
