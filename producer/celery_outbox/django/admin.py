"""The outbox in the admin: to look, and to retry and discard where the user may manage it."""

from functools import cached_property
from typing import Any, ClassVar, Final

from celery import current_app
from django.contrib import admin, messages  # type: ignore[import-untyped]  # Django ships no types
from django.contrib.admin.helpers import (  # type: ignore[import-untyped]  # the same
    ACTION_CHECKBOX_NAME,
)
from django.core.paginator import Paginator  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same
from django.template.response import TemplateResponse  # type: ignore[import-untyped]  # the same

from celery_outbox import settings
from celery_outbox.django.models import SCHEMA, Dead, Pending, Scheduled, Sent

#: Messages that are listed before they are discarded.
SHOWN: Final = 20


class CappedPaginator(Paginator):  # type: ignore[misc]  # Django ships no types
    """Counts no further than ten thousand: a backlog may be millions."""

    MAX_ROWS = 10_000

    @cached_property
    def count(self) -> int:
        """How many rows there are to page through."""
        return int(self.object_list[: self.MAX_ROWS].count())


class RowAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django ships no types
    """A view nobody edits."""

    list_display: ClassVar = ["message_id", "task", "args", "routing_key", "created_at"]
    search_fields: ClassVar = ["message_id", "task"]
    search_help_text = "Part of a message id (the task's id) or of a task's name"
    show_full_result_count = False
    paginator = CappedPaginator

    def get_queryset(self, request: Any) -> Any:
        """Read from the outbox's own database."""
        return super().get_queryset(request).using(alias())

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Show how much there is in all, which is cheap on any backlog."""
        return super().changelist_view(request, {"subtitle": counts(), **(extra_context or {})})

    def has_add_permission(self, _request: Any) -> bool:
        """Nobody adds a row here: tasks are sent."""
        return False

    def has_change_permission(self, _request: Any, _obj: Any = None) -> bool:
        """What was sent stays as it was sent."""
        return False

    def has_delete_permission(self, _request: Any, _obj: Any = None) -> bool:
        """A row goes by the action `discard`, which knows what a relay is doing."""
        return False

    def has_manage_permission(self, request: Any) -> bool:
        """Whether the user may retry and discard."""
        return bool(request.user.has_perm(f"celery_outbox.manage_{self.opts.model_name}"))


@admin.action(description="Retry: publish the selected messages after all", permissions=["manage"])  # type: ignore[untyped-decorator]  # Django ships no types
def retry(modeladmin: RowAdmin, request: Any, queryset: Any) -> None:
    """Have dead messages published after all."""
    _manage(modeladmin, request, queryset, "retry", "Retried")


@admin.action(
    description="Discard: delete the selected messages unpublished…", permissions=["manage"]
)  # type: ignore[untyped-decorator]  # the same
def discard(modeladmin: RowAdmin, request: Any, queryset: Any) -> TemplateResponse | None:
    """Delete messages unpublished, once that is confirmed."""
    if "confirmed" in request.POST:
        _manage(modeladmin, request, queryset, "discard", "Discarded")
        return None
    count = queryset.count()
    context = {
        **modeladmin.admin_site.each_context(request),
        "title": "Discard messages?",
        "opts": modeladmin.opts,
        "count": count,
        "messages_shown": queryset[:SHOWN],
        "more": max(0, count - SHOWN),
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
        "action_checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "celery_outbox/discard.html", context)


def _manage(modeladmin: RowAdmin, request: Any, queryset: Any, function: str, done: str) -> None:
    """Call `outbox.<function>(message_id)` for each row, and say and log what came of it."""
    selected, changed = list(queryset), 0
    with connections[alias()].cursor() as cursor:
        for row in selected:
            cursor.execute(f'SELECT "{SCHEMA}".{function}(%s)', [row.message_id])
            if cursor.fetchone()[0]:
                changed += 1
                modeladmin.log_change(request, row, f"{done} in the outbox")
    said = f"{done} {changed} of {len(selected)} selected."
    if changed == len(selected):
        modeladmin.message_user(request, said)
        return
    modeladmin.message_user(
        request,
        f"{said} For the others it is too late: a relay is publishing them, or they are gone.",
        messages.WARNING,
    )


def counts() -> str:
    """Return what there is, as one line."""
    with connections[alias()].cursor() as cursor:
        cursor.execute(f'SELECT pending, scheduled, dead FROM "{SCHEMA}".stats')
        pending, scheduled, dead = cursor.fetchone()
    return f"In all: {pending:,} pending, {scheduled:,} scheduled, {dead:,} dead"


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
