"""Tasks as a project has them."""

import os
import signal
import sys
from datetime import datetime
from typing import Any

from celery import current_task
from django.tasks import task  # type: ignore[import-untyped]  # since Django 6.0


@task  # type: ignore[untyped-decorator]  # Django ships no types
def add(left: int, right: int = 0) -> int:
    """Return a sum."""
    return left + right


@task  # type: ignore[untyped-decorator]  # the same
async def add_async(left: int, right: int = 0) -> int:
    """Return a sum."""
    return left + right


@task(takes_context=True)  # type: ignore[untyped-decorator]  # the same
def attempt(context: Any, until: int = 1) -> list[Any]:
    """Tell for the how manieth time it runs, and what it knows of itself; be retried until then."""
    if context.attempt < until:
        raise current_task.retry(countdown=3600)
    return [context.attempt, context.task_result.id, context.task_result.status]


@task  # type: ignore[untyped-decorator]  # the same
def fail(word: str) -> None:
    """Raise what is no error of Python's own."""
    raise Rejected(word)


@task  # type: ignore[untyped-decorator]  # the same
def leave(code: int) -> None:
    """Want to end the process."""
    sys.exit(code)


@task  # type: ignore[untyped-decorator]  # the same
def tell_time() -> datetime:
    """Return what is no JSON."""
    return datetime.now()


@task(takes_context=True)  # type: ignore[untyped-decorator]  # the same
def die_once(context: Any) -> list[str]:
    """Take the process along at first; then tell who has tried."""
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return list(context.task_result.worker_ids)


@task  # type: ignore[untyped-decorator]  # the same
def echo(value: Any) -> Any:
    """Return what was given."""
    return value


class Rejected(Exception):
    """An error of this project."""
