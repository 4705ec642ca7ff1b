"""Stand-ins for Django's two backends, made of ours, for tests that were written for those."""

from typing import Any

from celery import current_app
from django.db import connections  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox.django.tasks.backend import OutboxBackend
from django_suite.worker import carry_out

IDS = "SELECT message_id FROM outbox.message ORDER BY id"
FORGET = "DELETE FROM outbox.message"


class Recording(OutboxBackend):
    """As DummyBackend: what was enqueued can be listed and forgotten."""

    @property
    def results(self) -> list[Any]:
        """The result of every row."""
        with connections["default"].cursor() as cursor:
            cursor.execute(IDS)
            return [self.get_result(task_id) for (task_id,) in cursor.fetchall()]

    def clear(self) -> None:
        """Delete every row."""
        with connections["default"].cursor() as cursor:
            cursor.execute(FORGET)


class Working(OutboxBackend):
    """As ImmediateBackend: a worker has run the task when `enqueue` returns."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Store the row, carry its message out, and return what came of it."""
        result = super().enqueue(task, args, kwargs)
        carry_out(current_app, result.id)
        return self.get_result(result.id)
