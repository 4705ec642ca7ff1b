"""`OutboxBackend`: what is enqueued is a row in the caller's transaction, and a Celery task."""

from typing import Any, ClassVar, Final

from celery import current_app
from django.core import checks  # type: ignore[import-untyped]  # Django ships no types
from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]  # the same
from django.tasks import (  # type: ignore[import-untyped]  # since Django 6.0
    TaskResult,
    TaskResultStatus,
)
from django.tasks.backends.base import (  # type: ignore[import-untyped]  # the same
    BaseTaskBackend,
)
from django.tasks.exceptions import (  # type: ignore[import-untyped]  # the same
    TaskResultDoesNotExist,
)
from django.tasks.signals import task_enqueued  # type: ignore[import-untyped]  # the same
from django.utils import timezone  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox.app import OutboxCelery
from celery_outbox.django.tasks import checking, delivery, records, rows
from celery_outbox.django.tasks.errors import UnknownTask
from celery_outbox.django.tasks.running import run

NO_RESULTS: Final = (
    "No results can be read: Celery has no result backend that all processes share. Set"
    " result_backend in Celery's configuration (CELERY_RESULT_BACKEND in Django's settings), and"
    " neither rpc:// nor memory there, nor task_ignore_result"
)


class OutboxBackend(BaseTaskBackend):  # type: ignore[misc]  # Django ships no types
    """A backend for Django's TASKS: rows of the outbox, run by the workers of the Celery app.

    What is enqueued commits and rolls back with the transaction that the outbox's database is in.
    Results are those of Celery's result backend; until a worker has started, the outbox's row.
    """

    supports_defer: ClassVar = True
    supports_async_task: ClassVar = True
    supports_priority: ClassVar = True

    @property
    def supports_get_result(self) -> bool:
        """Whether Celery keeps results where every process can read them."""
        return records.keeps_results(self._app)

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Store the task, in the transaction that is in progress, and return its result.

        Raises InvalidTask, TypeError for arguments that are no JSON, ImproperlyConfigured without
        a Celery app that has an outbox, and what a Celery task's send raises.
        """
        self.validate_task(task)
        result = TaskResult(
            task=task,
            id="",
            status=TaskResultStatus.READY,
            enqueued_at=timezone.now(),
            started_at=None,
            last_attempted_at=None,
            finished_at=None,
            args=records.as_json(args),
            kwargs=records.as_json(kwargs),
            backend=self.alias,
            errors=[],
            worker_ids=[],
        )
        object.__setattr__(result, "id", self._send(result))
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the result of a task by its id.

        Raises TaskResultDoesNotExist, also where its function is gone, and NotImplementedError
        where no results are kept.
        """
        app = self._app
        if not records.keeps_results(app):
            raise NotImplementedError(NO_RESULTS)
        known = records.stored(app, result_id)
        if known is None or "path" not in known:
            row = rows.waiting(app, result_id)
            known = None if row is None else {**row, **(known or {})}
        if known is None:
            raise TaskResultDoesNotExist(result_id)
        try:
            return records.result_of(result_id, known)
        except UnknownTask as error:
            raise TaskResultDoesNotExist(f"{result_id}: {error}") from error

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """Return what is wrong with the configuration, for Django's system checks."""
        return [*super().check(**kwargs), *checking.check(self)]

    def _send(self, result: Any) -> str:
        app, task = self._app, result.task
        queue = delivery.queue_for(app, task.queue_name)
        eta = task.run_after
        if eta is not None and timezone.is_naive(eta):
            eta = timezone.make_aware(eta)
        sent = app.tasks[run.name].apply_async(
            (task.module_path, result.args, result.kwargs),
            {**records.facts_of(task), "enqueued_at": records.text(result.enqueued_at)},
            queue=queue,
            priority=delivery.priority_for(app, task.priority, queue),
            eta=eta,
            shadow=task.module_path,
        )
        return str(sent.id)

    @property
    def _app(self) -> OutboxCelery:
        """The Celery app of this project. Raises ImproperlyConfigured."""
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # of a Proxy
        if not isinstance(app, OutboxCelery):
            raise ImproperlyConfigured(checking.NO_APP)
        return app
