"""The one Celery task that runs every task of Django's: found by its path, with its signals.

A worker needs nothing but the app: `autodiscover_tasks()` and Django's checks import this module.
"""

from datetime import datetime
from traceback import format_exception
from typing import Any, Final

from celery import Task as CeleryTask
from celery import shared_task
from celery.exceptions import WorkerShutdown, WorkerTerminate
from django.tasks import (  # type: ignore[import-untyped]  # since Django 6.0
    TaskContext,
    TaskResultStatus,
)
from django.tasks.base import TaskError  # type: ignore[import-untyped]  # the same
from django.tasks.signals import (  # type: ignore[import-untyped]  # the same
    task_finished,
    task_started,
)
from django.utils import timezone  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox.django.tasks import records
from celery_outbox.django.tasks.errors import UnknownTask

#: Where a request keeps the result of a task that raised, and what it raised.
RAISED: Final = "django_raised"
#: What messages of Django's tasks are called, in the outbox and by Celery.
NAME: Final = "celery_outbox.django.tasks.run"
#: How often a worker looks again for a task that it does not know, with pauses that double up to
#: five minutes: for an hour and a half, in which a deploy has ended.
LOOKS: Final = 24
MAX_PAUSE: Final = 300


class DjangoTask(CeleryTask):  # type: ignore[type-arg]  # generic in the stubs alone
    """Stores the record of what a Django task raised, in place of what Celery has just stored."""

    def on_failure(self, *_: Any) -> None:
        """Note the failure, and send the signal."""
        if raised := getattr(self.request, RAISED, None):
            _fail(self, *raised)

    def on_retry(self, *_: Any) -> None:
        """Note that it is ready again: it asked Celery to run it later."""
        if raised := getattr(self.request, RAISED, None):
            result, _ = raised
            _set(result, status=TaskResultStatus.READY)
            records.store(self.app, result, self.request)


@shared_task(
    bind=True,
    base=DjangoTask,
    name=NAME,
    serializer="json",
    ignore_result=True,  # what is stored is the record
    store_errors_even_if_ignored=True,  # by the parent of a process that was killed
)
def run(
    self: DjangoTask, /, path: str, args: list[Any], kwargs: dict[str, Any], **facts: Any
) -> Any:
    """Run the task of Django's at `path`; `facts` are those of `records.facts_of` and the time."""
    record = {"path": path, "args": args, "kwargs": kwargs, **facts}
    record["status"] = TaskResultStatus.RUNNING.value
    try:
        result = records.result_of(str(self.request.id), record)
    except UnknownTask as error:  # newer than this worker's code, or older
        pause = min(2**self.request.retries, MAX_PAUSE)
        raise self.retry(exc=error, countdown=pause, max_retries=LOOKS) from None
    _start(self, result)
    try:
        value = _call(result)
    except BaseException as error:
        if _ends_process(error):
            raise
        setattr(self.request, RAISED, (result, error))
        if isinstance(error, Exception):
            raise
        # Such as sys.exit() or a cancellation: the task's own, for which no process is to end.
        raise RuntimeError(f"{path} raised {records.class_path(error)}") from error
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now())
    _set(result, _return_value=value)
    records.store(self.app, result, self.request)
    task_finished.send_robust(_sender(result), task_result=result)
    return value


def _start(run: Any, result: Any) -> None:
    """Note that it runs, in one attempt more than before, and send the signal."""
    now: datetime = timezone.now()
    if records.keeps_results(run.app):
        before = records.before(run.app, result.id)
        result.worker_ids.extend(before.get("worker_ids", ()))
        _set(result, started_at=records.time(before.get("started_at")))
    result.worker_ids.append(run.request.hostname or "")
    _set(result, started_at=result.started_at or now, last_attempted_at=now)
    records.store(run.app, result, run.request)
    task_started.send_robust(_sender(result), task_result=result)


def _call(result: Any) -> Any:
    """Call the function, and return what it returned, as JSON."""
    task = result.task
    context = (TaskContext(task_result=result),) if task.takes_context else ()
    return records.as_json(task.call(*context, *result.args, **result.kwargs))


def _ends_process(error: BaseException) -> bool:
    """Tell whether the worker is being ended, of which the task's end is no part."""
    if isinstance(error, KeyboardInterrupt | WorkerShutdown | WorkerTerminate):
        return True
    code = error.code if isinstance(error, SystemExit) else None
    return isinstance(code, int) and -256 < code <= -192  # as billiard exits on a signal


def _fail(run: Any, result: Any, error: BaseException) -> None:
    """Note what it raised, and send the signal, while the exception is being handled."""
    raised = TaskError(
        exception_class_path=records.class_path(error),
        traceback="".join(format_exception(error)),
    )
    result.errors.append(raised)
    _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now())
    records.store(run.app, result, run.request)
    task_finished.send_robust(_sender(result), task_result=result)


def _sender(result: Any) -> type:
    return type(result.task.get_backend())


def _set(result: Any, **values: Any) -> None:
    """Change a result, which is frozen for others."""
    for name, value in values.items():
        object.__setattr__(result, name, value)
