"""A page of messages in one state, found with the index of its order, however many there are.

The next page begins after the last message of this one (keyset), so that a page is never slower
because it is far down, and nothing is shown twice when rows come and go.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from outbox_console.errors import Problem
from outbox_console.outbox import missing, receipts
from outbox_console.outbox.filters import Filter
from outbox_console.outbox.receipts import Receipt
from outbox_console.outbox.states import State
from outbox_console.postgres.database import Session

PAGE: Final = 50
#: What an action on all that match reaches at most, and what is counted at most.
MAX_REACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a view; what a state does not have, or this person may not see, is None."""

    id: int
    message_id: str
    task: str
    exchange: str
    routing_key: str
    created_at: datetime
    at: datetime | None
    attempts: int | None
    last_error: str | None
    args: str | None
    kwargs: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries, and where the next page begins; empty where there is none.

    `receipts` are workers', by message id, and None where they are unknown. `note` says why nothing
    can be shown, or how far was looked.
    """

    entries: list[Entry]
    after: str
    receipts: dict[str, Receipt] | None = None
    note: str = ""


_COLUMNS: Final = "id, message_id, task, exchange, routing_key, created_at, {time} AS at"
_REASON: Final = ", attempts, last_error"
_NO_REASON: Final = ", NULL::smallint AS attempts, NULL::text AS last_error"
_PAYLOAD: Final = ", args, kwargs"
_NO_PAYLOAD: Final = ", NULL::text AS args, NULL::text AS kwargs"
#: Where the next page begins, by order.
_AFTER: Final = {
    "id": " AND id > %(after_id)s",
    "id DESC": " AND id < %(after_id)s",
    "available_at, id": (
        " AND available_at >= %(after_time)s"
        " AND (available_at > %(after_time)s OR id > %(after_id)s)"
    ),
}

COUNT: Final = "SELECT count(*) FROM (SELECT FROM {outbox}.%s %s LIMIT %s) counted"
#: Of a filter, only what was there when people looked: what came since was not in their number.
#: With the slots, which tell apart what has one id.
PLACES: Final = """
SELECT m.id, m.slot
  FROM (SELECT id, message_id FROM {outbox}.%s %s AND id <= %%(newest)s ORDER BY id LIMIT %s) chosen
 CROSS JOIN LATERAL (SELECT m.id, m.slot FROM {outbox}.message m
                      WHERE m.id = chosen.id AND m.message_id = chosen.message_id OFFSET 0) m
"""
#: What is missing, where nothing could be.
_NOTHING_TO_LOOK_AT: Final = (
    "Nothing to look at: since yesterday, the last five minutes left aside, no task was confirmed "
    "whose workers leave receipts."
)
NEWEST: Final = "SELECT max(id) FROM {outbox}.message"


@dataclass(frozen=True, slots=True)
class Place:
    """What names one message: its id, and the slot it is stored in."""

    id: int
    slot: int


@dataclass(frozen=True, slots=True)
class Counted:
    """How many one action reaches; `more` where there are, or may be, others."""

    count: int
    more: bool


async def page(
    session: Session,
    state: State,
    wanted: Filter,
    *,
    payload: bool,
    after: str = "",
    size: int = PAGE,
) -> Page:
    """The entries that match, in the state's order, after the given place."""
    if state.name == "missing":
        return await _missing(session, wanted, after, size)
    where = wanted.conditions(state, payload=payload) + (_AFTER[state.order] if after else "")
    columns = _COLUMNS.replace("{time}", state.time)
    columns += _REASON if state.has_reason else _NO_REASON
    columns += _PAYLOAD if payload else _NO_PAYLOAD
    statement = (
        f"SELECT {columns} FROM {{outbox}}.{state.name} {where}"
        f" ORDER BY {state.order} LIMIT {size + 1}"
    )
    found = await session.fetch(Entry, statement, **wanted.parameters(), **_place(state, after))
    following = _after(state, found[size - 1]) if len(found) > size else ""
    told = None
    if state.name == "sent":
        told = await receipts.of(session, [entry.message_id for entry in found[:size]])
    return Page(found[:size], following, told)


async def _missing(session: Session, wanted: Filter, after: str, size: int) -> Page:
    found = await missing.find(session, wanted, after, size)
    entries = [_entry(row) for row in found.rows]
    told = await receipts.of(session, [entry.message_id for entry in entries])
    if found.note:
        return Page([], "", note=found.note)
    if wanted.is_empty and not (after or found.looked or found.until):
        return Page([], "", note=_NOTHING_TO_LOOK_AT)
    looked = f"Looked at {found.looked:,} confirmed messages"
    if found.until:
        looked += ", and there are more to be looked at"
    return Page(entries, found.until.isoformat() if found.until else "", told, f"{looked}.")


def _entry(row: dict[str, Any]) -> Entry:
    names = ("id", "message_id", "task", "exchange", "routing_key")
    return Entry(
        **{name: row[name] for name in names},
        created_at=datetime.fromisoformat(row["created_at"]),
        at=datetime.fromisoformat(row["sent_at"]),
        attempts=None,
        last_error=None,
        args=None,
        kwargs=None,
    )


async def count(session: Session, state: State, wanted: Filter, *, payload: bool) -> Counted:
    """How many match."""
    if state.name == "missing":
        found = await missing.find(session, wanted, "", MAX_REACHED)
        return Counted(min(len(found.rows), MAX_REACHED), found.until is not None)
    where = wanted.conditions(state, payload=payload)
    counted = await session.value(
        COUNT % (state.name, where, MAX_REACHED + 1), **wanted.parameters()
    )
    return Counted(min(int(counted), MAX_REACHED), counted > MAX_REACHED)


async def places(
    session: Session, state: State, wanted: Filter, newest: int, limit: int, *, payload: bool
) -> list[Place]:
    """Those that match and are not newer."""
    if state.name == "missing":
        rows_missing = (await missing.find(session, wanted, "", limit)).rows
        found = dict.fromkeys(Place(row["id"], row["slot"]) for row in rows_missing)
        return [place for place in found if place.id <= newest][:limit]
    statement = PLACES % (state.name, wanted.conditions(state, payload=payload), int(limit))
    return await session.fetch(Place, statement, **wanted.parameters(), newest=newest)


def _after(state: State, last: Entry) -> str:
    if state.order.startswith("id"):
        return str(last.id)
    return f"{last.at.isoformat() if last.at else ''},{last.id}"


def _place(state: State, after: str) -> dict[str, Any]:
    if not after:
        return {}
    time, _, id_ = after.rpartition(",")
    try:
        place: dict[str, Any] = {"after_id": int(id_)}
        if not state.order.startswith("id"):
            place["after_time"] = datetime.fromisoformat(time)
    except ValueError:
        raise Problem(400, "No page begins there", "Begin with the first.") from None
    return place
