"""The actions of the admin: a function of the schema does each to what is selected, and records it.

What cannot be undone is asked for first, with how many messages of which tasks it is about.
"""

from collections import Counter
from typing import Any, Final

from django.contrib import admin, messages  # type: ignore[import-untyped]  # Django ships no types
from django.contrib.admin.helpers import (  # type: ignore[import-untyped]  # the same
    ACTION_CHECKBOX_NAME,
)
from django.db import connections  # type: ignore[import-untyped]  # the same
from django.template.response import TemplateResponse  # type: ignore[import-untyped]  # the same

from celery_outbox.django.database import alias
from celery_outbox.django.models import SCHEMA, Dead

DONE: Final = {
    "retry": "Retried",
    "discard": "Discarded",
    "cancel": "Discarded",
    "replay": "Replayed",
}
#: Messages that are listed before they are discarded or replayed.
SHOWN: Final = 20
#: Messages that one action manages at most: a request must end, and the command line has no limit.
MAX_SELECTED: Final = 10_000

#: The change and its record in outbox.action, in one transaction; the ids of what was changed. An
#: id can have been given twice: the message id beside it tells which of the two is meant.
ACTED: Final = """
WITH chosen AS MATERIALIZED (
    SELECT m.id, m.slot FROM "{schema}".message m
      JOIN unnest(%s::bigint[], %s::text[]) AS c (id, message_id)
        ON m.id = c.id AND m.message_id = c.message_id
)
SELECT id FROM "{schema}".acted(
    %s, ARRAY(SELECT id FROM chosen ORDER BY id, slot),
    ARRAY(SELECT slot FROM chosen ORDER BY id, slot), %s, '', NULL)
"""
#: Bytes of a name that the record takes.
MAX_WHO: Final = 255

DISCARDED: Final = {
    "consequence": "deleted from the outbox for good and never published",
    "warning": (
        "This cannot be undone. Whoever waits for a result waits in vain, and so does the rest of"
        " a chain, group or chord."
    ),
}
REPLAYED: Final = {
    "consequence": "published again, under the same id",
    "warning": (
        "Workers receive each of them a second time: a task that is not idempotent has its effects"
        " twice."
    ),
}


@admin.action(description="Retry: publish the selected messages after all", permissions=["manage"])  # type: ignore[untyped-decorator]  # Django ships no types
def retry(modeladmin: Any, request: Any, queryset: Any) -> None:
    """Have dead messages published after all."""
    _manage(modeladmin, request, queryset, "retry")


@admin.action(
    description="Discard: delete the selected messages unpublished…", permissions=["manage"]
)  # type: ignore[untyped-decorator]  # the same
def discard(modeladmin: Any, request: Any, queryset: Any) -> TemplateResponse | None:
    """Delete messages unpublished, once that is confirmed."""
    if "confirmed" in request.POST:
        _manage(modeladmin, request, queryset, "discard" if queryset.model is Dead else "cancel")
        return None
    return _ask(modeladmin, request, queryset, "discard", DISCARDED)


@admin.action(
    description="Replay: publish the selected messages a second time…", permissions=["manage"]
)  # type: ignore[untyped-decorator]  # the same
def replay(modeladmin: Any, request: Any, queryset: Any) -> TemplateResponse | None:
    """Have sent messages published again, once that is confirmed."""
    if "confirmed" in request.POST:
        _manage(modeladmin, request, queryset, "replay")
        return None
    return _ask(modeladmin, request, queryset, "replay", REPLAYED)


def _ask(
    modeladmin: Any, request: Any, queryset: Any, action: str, words: dict[str, str]
) -> TemplateResponse | None:
    """Show what is about to happen, and to which messages."""
    if _too_many(modeladmin, request, queryset):
        return None
    tasks = Counter(queryset.values_list("task", flat=True)).most_common()
    count = sum(number for _, number in tasks)
    context = {
        **modeladmin.admin_site.each_context(request),
        **words,
        "title": f"{action.capitalize()} {count:,} message{'' if count == 1 else 's'}?",
        "opts": modeladmin.opts,
        "action": action,
        "verb": action.capitalize(),
        "count": count,
        "tasks": tasks[:SHOWN],
        "messages_shown": queryset[:SHOWN],
        "more": max(0, count - SHOWN),
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "select_across": request.POST.get("select_across", "0"),
        "action_checkbox_name": ACTION_CHECKBOX_NAME,
    }
    return TemplateResponse(request, "celery_outbox/confirm.html", context)


def _manage(modeladmin: Any, request: Any, queryset: Any, action: str) -> None:
    """Do it to each row, and say and log what came of it."""
    if _too_many(modeladmin, request, queryset):
        return
    selected, done = list(queryset), DONE[action]
    ids, message_ids = [row.id for row in selected], [row.message_id for row in selected]
    with connections[alias()].cursor() as cursor:
        statement = ACTED.format(schema=SCHEMA)
        cursor.execute(statement, [ids, message_ids, action, _who(request.user)])
        changed = {id for (id,) in cursor.fetchall()}
    for row in selected:
        if row.id in changed:
            modeladmin.log_change(request, row, f"{done} in the outbox")
    said = f"{done} {len(changed):,} of {len(selected):,} selected."
    if len(changed) == len(selected):
        modeladmin.message_user(request, said)
        return
    modeladmin.message_user(
        request,
        f"{said} The others have changed since: a relay has them, or they are gone.",
        messages.WARNING,
    )


def _who(user: Any) -> str:
    """Return whom the record names: whoever is logged in, and where."""
    suffix = " (Django admin)"
    name = str(user.get_username()).encode()[: MAX_WHO - len(suffix)]
    return name.decode(errors="ignore") + suffix


def _too_many(modeladmin: Any, request: Any, queryset: Any) -> bool:
    """Whether the selection is larger than a request can manage; the user is told so."""
    if queryset[: MAX_SELECTED + 1].count() <= MAX_SELECTED:
        return False
    modeladmin.message_user(
        request,
        f"More than {MAX_SELECTED:,} messages are selected: nothing was done. Narrow the search,"
        " or use the command outbox-relay, which works through any number.",
        messages.ERROR,
    )
    return True
