"""The outbox in the admin: to look, and to retry and discard where the user may steer."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

from celery import current_app
from django.contrib import admin  # type: ignore[import-untyped]  # Django ships no types
from django.core.paginator import Paginator  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same

from celery_outbox import settings
from celery_outbox.django.models import SCHEMA, Dead, Pending, Scheduled, Sent


class CappedPaginator(Paginator):  # type: ignore[misc]  # Django ships no types
    """Counts no further than ten thousand: a backlog may be millions."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        """How many rows there are to page through."""
        return int(self.object_list[: self.MOST].count())


class RowAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django ships no types
    """A view nobody edits."""

    list_display: ClassVar = ["message_id", "task", "args", "routing_key", "created_at"]
    search_fields: ClassVar = ["=message_id", "=task"]
    show_full_result_count = False
    paginator = CappedPaginator

    def get_queryset(self, request: Any) -> Any:
        """Read from the outbox's own database."""
        return super().get_queryset(request).using(alias())

    def has_add_permission(self, _request: Any) -> bool:
        """Nobody adds a row here: tasks are sent."""
        return False

    def has_change_permission(self, _request: Any, _obj: Any = None) -> bool:
        """What was sent stays as it was sent."""
        return False

    def has_delete_permission(self, _request: Any, _obj: Any = None) -> bool:
        """A row goes by the action `discard`, which knows what a relay is doing."""
        return False

    def has_steer_permission(self, request: Any) -> bool:
        """Whether the user may retry and discard."""
        return bool(request.user.has_perm(f"celery_outbox.steer_{self.opts.model_name}"))


def steering(function: str, description: str) -> Callable[..., None]:
    """Return an action that calls `outbox.<function>(message_id)` for each selected row."""

    def action(modeladmin: RowAdmin, request: Any, queryset: Any) -> None:
        selected = list(queryset.values_list("message_id", flat=True))
        done = 0
        with connections[alias()].cursor() as cursor:
            for message_id in selected:
                cursor.execute(f'SELECT "{SCHEMA}".{function}(%s)', [message_id])
                done += cursor.fetchone()[0]
        modeladmin.message_user(request, f"{function}: {done} of {len(selected)}")

    action.__name__ = function
    decorated: Callable[..., None] = admin.action(
        action, description=description, permissions=["steer"]
    )
    return decorated


retry = steering("retry", "Retry: publish the selected messages after all")
discard = steering("discard", "Discard: never publish the selected messages")


class UnsentAdmin(RowAdmin):
    """Messages that can be discarded."""

    list_display: ClassVar = [*RowAdmin.list_display, "available_at", "attempts", "last_error"]
    actions: ClassVar = [discard]


class DeadAdmin(UnsentAdmin):
    """Messages that can also be retried."""

    actions: ClassVar = [retry, discard]


class SentAdmin(RowAdmin):
    """Messages that nothing is to be done about."""

    list_display: ClassVar = [*RowAdmin.list_display, "sent_at"]


def alias() -> str:
    """The database of the outbox."""
    return settings.django_alias(current_app) or "default"


admin.site.register(Pending, UnsentAdmin)
admin.site.register(Scheduled, UnsentAdmin)
admin.site.register(Dead, DeadAdmin)
admin.site.register(Sent, SentAdmin)
