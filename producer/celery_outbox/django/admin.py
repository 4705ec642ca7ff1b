"""The outbox in the admin: to look, and to retry, replay and discard for who may manage it."""

from functools import cached_property
from typing import Any, ClassVar, Final

from django.contrib import admin  # type: ignore[import-untyped]  # Django ships no types
from django.core.paginator import Paginator  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same
from django.urls import reverse  # type: ignore[import-untyped]  # the same

from celery_outbox.django.database import alias
from celery_outbox.django.managing import discard, replay, retry
from celery_outbox.django.models import SCHEMA, Dead, Expired, Pending, Row, Scheduled, Sent

#: In the order in which a list links to the others.
STATES: Final = (Pending, Scheduled, Dead, Expired, Sent)
#: How many there are of each, but for those sent: to count these would mean to read all.
COUNTS: Final = f'SELECT pending, scheduled, dead, expired FROM "{SCHEMA}".stats'


class CappedPaginator(Paginator):  # type: ignore[misc]  # Django ships no types
    """Counts no further than ten thousand: a backlog may be millions."""

    MAX_ROWS = 10_000

    @cached_property
    def count(self) -> int:
        """How many rows there are to page through."""
        return int(self.object_list[: self.MAX_ROWS].count())


class RowAdmin(admin.ModelAdmin):  # type: ignore[misc]  # Django ships no types
    """A view nobody edits."""

    change_list_template = "celery_outbox/list.html"
    search_fields: ClassVar = ["message_id", "task"]
    search_help_text = "Part of a message id (the task's id) or of a task's name"
    show_full_result_count = False
    paginator = CappedPaginator

    def get_queryset(self, request: Any) -> Any:
        """Read from the outbox's own database."""
        return super().get_queryset(request).using(alias())

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Link to the lists of the other states, with how much there is of each."""
        context = {
            "title": f"Outbox: {self.opts.verbose_name_plural}",
            "states": self._states(request),
            "explanation": self.model.__doc__,
        }
        return super().changelist_view(request, {**context, **(extra_context or {})})

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
        """Whether the user may retry, replay and discard."""
        return bool(request.user.has_perm(f"celery_outbox.manage_{self.opts.model_name}"))

    def _states(self, request: Any) -> list[dict[str, Any]]:
        with connections[alias()].cursor() as cursor:
            cursor.execute(COUNTS)
            counts = dict(zip(STATES, (f"{n:,}" for n in cursor.fetchone()), strict=False))
        return [
            {
                "name": state._meta.verbose_name_plural,
                "count": counts.get(state),
                "here": state is self.model,
                "url": self._url(request, state),
            }
            for state in STATES
        ]

    def _url(self, request: Any, state: type[Row]) -> str | None:
        """Where the list of a state is, for a user who may see it."""
        name = state._meta.model_name
        if not request.user.has_perm(f"celery_outbox.view_{name}"):
            return None
        site = self.admin_site.name
        return str(reverse(f"admin:celery_outbox_{name}_changelist", current_app=site))


# Five columns each, with the one that is asked for first: more do not fit a window.


class PendingAdmin(RowAdmin):
    """Messages that can be discarded; some were refused, and will be tried again."""

    list_display: ClassVar = ["message_id", "task", "routing_key", "attempts", "last_error"]
    actions: ClassVar = [discard]


class ScheduledAdmin(RowAdmin):
    """Messages that can be discarded; what matters is their time."""

    list_display: ClassVar = ["message_id", "task", "args", "routing_key", "available_at"]
    actions: ClassVar = [discard]


class DeadAdmin(RowAdmin):
    """Messages that can also be retried; what matters is why they are dead."""

    list_display: ClassVar = ["message_id", "task", "last_error", "attempts", "created_at"]
    actions: ClassVar = [retry, discard]


class ExpiredAdmin(RowAdmin):
    """Messages that nothing is to be done about."""

    list_display: ClassVar = ["message_id", "task", "args", "expired_at", "last_error"]


class SentAdmin(RowAdmin):
    """Messages that can be sent again."""

    list_display: ClassVar = ["message_id", "task", "args", "routing_key", "sent_at"]
    actions: ClassVar = [replay]


admin.site.register(Pending, PendingAdmin)
admin.site.register(Scheduled, ScheduledAdmin)
admin.site.register(Dead, DeadAdmin)
admin.site.register(Expired, ExpiredAdmin)
admin.site.register(Sent, SentAdmin)
