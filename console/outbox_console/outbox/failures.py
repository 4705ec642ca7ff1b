"""What fails, by cause: the dead, and those that wait for another attempt.

Where there are very many, only the newest are looked at: an incident shows in those. Their reasons
stand close together, in narrow work rows. Tasks and queues are looked up for only some messages of
each cause, because each of these is on another page of the large table.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from outbox_console.postgres.database import Session

#: How many are looked at, of each kind; and of how many, at most, tasks and queues are looked up:
#: of each cause, and of all of them, the most frequent first.
LOOKED_AT: Final = 2000
NAMED: Final = 100
NAMED_IN_ALL: Final = 500
#: Into how many parts the time of a trend is cut.
PARTS: Final = 24

DEAD: Final = f"""
SELECT id, slot, last_error, available_at AS at, false AS held_back FROM {{outbox}}.parked
 WHERE state NOT IN ('scheduled', 'retry') AND id >= {{outbox}}.by_index(0)
 ORDER BY id DESC LIMIT {LOOKED_AT}
"""
#: Waits for another attempt, or for its route to take messages again: `available_at` is when. What
#: is held back has not failed: it is looked at as well, as nobody knows how many of these follow
#: one another, and then left out.
RETRYING: Final = f"""
SELECT id, slot, last_error, available_at AS at, left(route, 1) = chr(30) IS TRUE AS held_back
  FROM {{outbox}}.parked
 WHERE state NOT IN ('scheduled', 'dead') AND id >= {{outbox}}.by_index(0)
   AND last_error IS NOT NULL
 ORDER BY id DESC LIMIT {LOOKED_AT}
"""
#: OFFSET 0: as a plain join, the messages would be read from end to end.
NAMES: Final = """
SELECT m.id, m.slot, m.task, m.routing_key
  FROM unnest(%(ids)s::bigint[], %(slots)s::smallint[]) AS w (id, slot)
 CROSS JOIN LATERAL (SELECT id, slot, task, routing_key FROM {outbox}.message
                      WHERE id = w.id AND slot = w.slot OFFSET 0) m
"""
#: What differs from one message to the next within one cause: ids, and numbers that are not a
#: broker's reply code, as in `312 NO_ROUTE`.
_VARYING: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b\d+\b(?! [A-Z_]{3,}\b)"
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A message that was refused; or is `held_back` by a pause, a rate or a depth."""

    id: int
    slot: int
    last_error: str | None
    at: datetime
    held_back: bool = False


@dataclass(frozen=True, slots=True)
class Named:
    """Of which task a message is, and where it goes."""

    id: int
    slot: int
    task: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Messages with one reason. `trend` counts them in PARTS equal parts of the time looked at.

    `tasks` and `queues` are those of the newest `named` of them.
    """

    reason: str
    needle: str
    count: int
    named: int
    tasks: list[tuple[str, int]]
    queues: list[tuple[str, int]]
    first: datetime
    last: datetime
    trend: list[int]


@dataclass(frozen=True, slots=True)
class Failures:
    """The causes, the most frequent first. So many were `looked_at`, of which some `held_back`."""

    causes: list[Cause]
    looked_at: int
    held_back: int


async def dead(session: Session) -> Failures:
    """Why the newest dead are dead."""
    return await _failures(session, DEAD)


async def retrying(session: Session) -> Failures:
    """Why the newest wait that wait for another attempt."""
    return await _failures(session, RETRYING)


async def _failures(session: Session, statement: str) -> Failures:
    found = await session.fetch(Failed, statement)
    failed = [each for each in found if not each.held_back]
    causes = await _causes(session, failed)
    return Failures(causes, len(found), len(found) - len(failed))


async def _causes(session: Session, failed: Sequence[Failed]) -> list[Cause]:
    groups = by_cause(failed)
    chosen = to_name(members for _, members in groups)
    rows = {"ids": [each.id for each in chosen], "slots": [each.slot for each in chosen]}
    known = await session.fetch(Named, NAMES, **rows) if chosen else []
    names = {(each.id, each.slot): each for each in known}
    begin = min((each.at for each in failed), default=datetime.min)
    end = max((each.at for each in failed), default=datetime.min)
    return [_cause(reason, members, names, begin, end) for reason, members in groups]


def by_cause(failed: Sequence[Failed]) -> list[tuple[str, list[Failed]]]:
    """Reasons with those that have them, the most frequent first. Pure."""
    groups: dict[str, list[Failed]] = {}
    for each in failed:
        groups.setdefault(cause_of(each.last_error), []).append(each)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


def to_name(groups: Iterable[Sequence[Failed]]) -> list[Failed]:
    """Those to be looked up: the newest of each, and of no more causes than there is room for."""
    return [each for members in groups for each in members[:NAMED]][:NAMED_IN_ALL]


def cause_of(reason: str | None) -> str:
    """The reason without what differs from message to message."""
    return _VARYING.sub("…", (reason or "no reason was given").splitlines()[0])[:300]


def _cause(
    reason: str,
    members: list[Failed],
    names: dict[tuple[int, int], Named],
    begin: datetime,
    end: datetime,
) -> Cause:
    times = [member.at for member in members]
    named = [names[key] for each in members if (key := (each.id, each.slot)) in names]
    return Cause(
        reason=reason,
        # The longest part that all of them share finds them again.
        needle=max(reason.split("…"), key=len).strip(),
        count=len(members),
        named=len(named),
        tasks=Counter(each.task for each in named).most_common(4),
        queues=Counter(each.routing_key for each in named).most_common(4),
        first=min(times),
        last=max(times),
        trend=_trend(times, begin, end),
    )


def _trend(times: list[datetime], begin: datetime, end: datetime) -> list[int]:
    part = max((end - begin) / PARTS, timedelta(microseconds=1))
    counts = Counter(min(PARTS - 1, int((time - begin) / part)) for time in times)
    return [counts[number] for number in range(PARTS)]
