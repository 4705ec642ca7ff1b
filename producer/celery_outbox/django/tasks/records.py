"""What is known of a Django task that has started, as JSON in Celery's result backend.

One record for each task, under its own id. Celery's states say the same to who asks Celery:
STARTED, RETRY, SUCCESS, FAILURE. What only Celery knows, such as a killed worker, is read as well.
"""

import json
import logging
from datetime import datetime
from typing import Any, Final

from celery import states
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend
from django.tasks import (  # type: ignore[import-untyped]  # since Django 6.0
    Task,
    TaskResult,
    TaskResultStatus,
)
from django.tasks.base import TaskError  # type: ignore[import-untyped]  # the same
from django.tasks.exceptions import InvalidTask  # type: ignore[import-untyped]  # the same
from django.utils.json import normalize_json  # type: ignore[import-untyped]  # the same
from django.utils.module_loading import import_string  # type: ignore[import-untyped]  # no types

from celery_outbox.django.tasks.errors import Raised, UnknownTask

logger = logging.getLogger(__name__)

Record = dict[str, Any]

#: By this a record is told from the result of any other task.
KIND: Final = "django.tasks"
TIMES: Final = ("enqueued_at", "started_at", "last_attempted_at", "finished_at")
STATES: Final = {
    TaskResultStatus.READY: states.RETRY,
    TaskResultStatus.RUNNING: states.STARTED,
    TaskResultStatus.SUCCESSFUL: states.SUCCESS,
    TaskResultStatus.FAILED: states.FAILURE,
}


def keeps_results(app: Any) -> bool:
    """Tell whether any process could read what is stored here."""
    backend = app.backend
    if isinstance(backend, DisabledBackend | RPCBackend) or app.conf.task_ignore_result:
        return False
    return not str(app.conf.result_backend).startswith(("memory:", "cache+memory:"))


def store(app: Any, result: Any, request: Any) -> None:
    """Store the record of a result. What cannot be stored is logged: the task goes on."""
    if not keeps_results(app):
        return
    record = record_of(result)
    value: Any = record
    if STATES[result.status] in states.EXCEPTION_STATES:
        value = Raised(record)
    traceback = result.errors[-1].traceback if result.errors else None
    try:
        app.backend.store_result(
            result.id, value, STATES[result.status], traceback=traceback, request=request
        )
    except Exception as error:
        logger.error(
            "Task id=%s path=%s is %s, which the result backend did not take (%s)",
            result.id,
            result.task.module_path,
            result.status,
            type(error).__name__,
        )


def stored(app: Any, task_id: str) -> Record | None:
    """Return the record of a task, or None if nothing is known of it, or if it has not started."""
    meta = app.backend.get_task_meta(task_id)
    found = meta.get("result")
    if isinstance(found, Raised):
        found = found.record
    if isinstance(found, dict) and found.get("kind") == KIND:
        return found
    if meta["status"] in states.EXCEPTION_STATES - {states.RETRY}:
        return _failure(found, meta)
    return None


def before(app: Any, task_id: str) -> Record:
    """Return the record of an earlier attempt, empty where there was none that is known."""
    try:
        return stored(app, task_id) or {}
    except Exception as error:
        logger.warning(
            "Task id=%s: earlier attempts are not known, the result backend did not answer (%s)",
            task_id,
            type(error).__name__,
        )
        return {}


def _failure(error: Any, meta: dict[str, Any]) -> Record:
    """Return the part of a record that Celery's word on a failure makes."""
    return {
        "status": TaskResultStatus.FAILED.value,
        "errors": [
            {"exception_class_path": class_path(error), "traceback": meta["traceback"] or ""}
        ],
        "finished_at": text(meta.get("date_done")),
    }


def class_path(error: Any) -> str:
    """Return by which path the class of an exception is imported."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def as_json(value: Any) -> Any:
    """Return a value as it comes out of JSON: Django's own check leaves keys that are no text.

    Raises TypeError for what is no JSON, and where two keys would become the same text.
    """
    return json.loads(json.dumps(normalize_json(value)), object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise TypeError("Unsupported keys: two of a dictionary are the same text in JSON")
    return found


def record_of(result: Any) -> Record:
    """Return what a result consists of, as JSON."""
    return {
        "kind": KIND,
        "path": result.task.module_path,
        "args": result.args,
        "kwargs": result.kwargs,
        **facts_of(result.task),
        "status": result.status.value,
        **{name: text(getattr(result, name)) for name in TIMES},
        "errors": [
            {"exception_class_path": e.exception_class_path, "traceback": e.traceback}
            for e in result.errors
        ],
        "worker_ids": result.worker_ids,
        "return_value": result._return_value,
    }


def result_of(task_id: str, record: Record) -> Any:
    """Return the result that a record is of. Raises UnknownTask."""
    result = TaskResult(
        task=task_of(record),
        id=task_id,
        status=TaskResultStatus(record["status"]),
        **{name: time(record.get(name)) for name in TIMES},
        args=record["args"],
        kwargs=record["kwargs"],
        backend=record["backend"],
        errors=[TaskError(**error) for error in record.get("errors", ())],
        worker_ids=list(record.get("worker_ids", ())),
    )
    object.__setattr__(result, "_return_value", record.get("return_value"))
    return result


def facts_of(task: Any) -> Record:
    """Return what a task was told beside its arguments, as JSON."""
    return {
        "backend": task.backend,
        "queue_name": task.queue_name,
        "priority": task.priority,
        "run_after": text(task.run_after),
    }


def task_of(record: Record) -> Any:
    """Return the task of a record, with its queue and the like. Raises UnknownTask."""
    path = record["path"]
    try:
        task = import_string(path)
    except ImportError as error:
        raise UnknownTask.about(path=path, reason=f"it cannot be imported ({error})") from error
    if not isinstance(task, Task):
        raise UnknownTask.about(path=path, reason="what is there is no task of Django's")
    try:
        return task.using(
            backend=record["backend"],
            queue_name=record["queue_name"],
            priority=record["priority"],
            run_after=time(record["run_after"]),
        )
    except InvalidTask:  # TASKS has changed since, which must not keep it from running
        return task


def text(time: Any) -> str | None:
    """Return a time as a record has it."""
    return time.isoformat() if isinstance(time, datetime) else time


def time(text: str | None) -> datetime | None:
    """Return the time that a record has."""
    return None if text is None else datetime.fromisoformat(text)
