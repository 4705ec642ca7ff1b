"""What the broker has confirmed and no worker has finished, where workers leave receipts.

There is no list of it: it is looked for, in the order of the confirms, for as long as people wait.
A page says how far it has looked, and the next goes on there.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from outbox_console.errors import Problem
from outbox_console.outbox.filters import Filter, time
from outbox_console.outbox.receipts import known
from outbox_console.postgres.database import Session

#: Seconds for one page, and for one that an action is to reach; and for those chosen one by one,
#: of which none may be left out because it was late.
PATIENCE: Final = 0.9
PATIENCE_CHOSEN: Final = 3.0
#: Where people name no time.
LOOK_BACK: Final = "1 day"

#: Begins where receipts are to be expected, and ends where they may not have come yet.
BEGIN: Final = f"""
SELECT greatest(coalesce(%(since)s::timestamptz, now() - interval '{LOOK_BACK}'),
                (SELECT min(since) FROM inbox.watched)) AS begin,
       now() - interval '5 minutes' AS end,
       EXISTS (SELECT FROM inbox.watched) AS watched
"""
#: When those that were chosen were confirmed last: where each is found at once, however long ago.
#: In each slot, because another message may have one of their ids.
CONFIRMED: Final = """
SELECT DISTINCT t.sent_at FROM unnest(%(rows)s::bigint[]) AS chosen (id)
 CROSS JOIN LATERAL (SELECT max(r.sent_at) AS sent_at FROM {outbox}.receipt r
                      WHERE r.span @> chosen.id AND chosen.id = ANY (r.ids) GROUP BY r.slot) t
 WHERE t.sent_at <= %(end)s ORDER BY 1
"""
PORTION: Final = "SELECT last, looked, missing FROM {outbox}.missing_portion(%(after)s, %(until)s)"


@dataclass(frozen=True, slots=True)
class Span:
    """The time to look through."""

    begin: datetime
    end: datetime
    watched: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that were confirmed at one moment."""

    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Portion:
    """What is missing of some batches; `last` is None behind the last of them."""

    last: datetime | None
    looked: int
    missing: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found; `until` is None where everything was looked at."""

    rows: list[dict[str, Any]]
    looked: int
    until: datetime | None
    note: str = ""


async def find(session: Session, wanted: Filter, after: str, most: int) -> Found:
    """At least `most` of what matches, or what could be found in time."""
    if not await known(session):
        return Found([], 0, None, _UNKNOWN)
    (span,) = await session.fetch(Span, BEGIN, since=time("since", wanted.since))
    if not span.watched:
        return Found([], 0, None, _UNWATCHED)
    if wanted.rows:
        return await _chosen(session, wanted, span)
    at = time("after", after) or span.begin
    rows: list[dict[str, Any]] = []
    looked, ends = 0, _now() + PATIENCE
    while len(rows) < most and _now() < ends:
        (portion,) = await session.fetch(Portion, PORTION, after=at, until=span.end)
        if portion.last is None:
            return Found(rows, looked, None)
        at, looked = portion.last, looked + portion.looked
        rows += _matching(portion.missing or [], wanted)
    return Found(rows, looked, at)


async def _chosen(session: Session, wanted: Filter, span: Span) -> Found:
    """Those of the chosen that are missing still."""
    rows: list[dict[str, Any]] = []
    looked, ends = 0, _now() + PATIENCE_CHOSEN
    batches = await session.fetch(Batch, CONFIRMED, rows=list(wanted.rows), end=span.end)
    for batch in batches:
        if _now() > ends:
            raise Problem(422, "Too many were chosen", "Nothing was done. Choose fewer at once.")
        before = batch.sent_at - timedelta(microseconds=1)
        (portion,) = await session.fetch(Portion, PORTION, after=before, until=batch.sent_at)
        looked += portion.looked
        rows += _matching(portion.missing or [], wanted)
    return Found(rows, looked, None)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _matching(rows: Iterable[dict[str, Any]], wanted: Filter) -> list[dict[str, Any]]:
    if wanted.text or wanted.reason:
        raise Problem(400, "Nothing missing is searched by text", "Search by task, queue or id.")
    until = time("until", wanted.until)
    return [
        row
        for row in rows
        if wanted.task in ("", row["task"])
        and wanted.queue in ("", row["routing_key"])
        and wanted.id in ("", row["message_id"], str(row["id"]))
        and (not wanted.rows or row["id"] in wanted.rows)
        and (until is None or datetime.fromisoformat(row["created_at"]) < until)
    ]


_UNKNOWN: Final = (
    "No receipts in this database, so nobody knows what has run. Workers leave them with "
    "celery_inbox.receipts(app, connect); where they do so in another database, ask "
    "outbox-relay audit --inbox-url."
)
_UNWATCHED: Final = (
    "No worker leaves receipts yet: call celery_inbox.receipts(app, connect) in the workers."
)
