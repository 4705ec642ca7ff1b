"""What fails, by cause: the dead, and those that wait for another attempt.

Of very many, the newest are looked at: an incident shows in those.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from outbox_console.postgres.database import Session

#: How many are looked at, of each kind.
LOOKED_AT: Final = 2000
#: Into how many parts the time of a trend is cut.
PARTS: Final = 24

#: The newest, with the narrow work rows first: only those shown are looked up among the messages.
DEAD: Final = f"""
SELECT id, task, routing_key, last_error, available_at AS at FROM {{outbox}}.dead
ORDER BY id DESC LIMIT {LOOKED_AT}
"""
#: Waits for another attempt, or for its route to take messages again: `available_at` is when.
RETRYING: Final = f"""
SELECT p.id, m.task, m.routing_key, p.last_error, p.available_at AS at
  FROM (SELECT * FROM {{outbox}}.parked
         WHERE state NOT IN ('scheduled', 'dead') AND last_error IS NOT NULL
         ORDER BY id DESC LIMIT {LOOKED_AT}) p
  JOIN {{outbox}}.message m ON m.id = p.id AND m.slot = p.slot
"""
#: What differs from one message to the next within one cause: ids, and numbers that are not a
#: broker's reply code, as in `312 NO_ROUTE`.
_VARYING: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b|\b\d+\b(?! [A-Z_]{3,}\b)"
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A message that was refused."""

    id: int
    task: str
    routing_key: str
    last_error: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Cause:
    """Messages with one reason. `trend` counts them in PARTS equal parts of the time looked at."""

    reason: str
    needle: str
    count: int
    tasks: list[tuple[str, int]]
    queues: list[tuple[str, int]]
    first: datetime
    last: datetime
    trend: list[int]


async def dead(session: Session) -> list[Failed]:
    """The newest dead."""
    return await session.fetch(Failed, DEAD)


async def retrying(session: Session) -> list[Failed]:
    """The newest that wait for another attempt."""
    return await session.fetch(Failed, RETRYING)


def by_cause(failed: Sequence[Failed]) -> list[Cause]:
    """The causes, the most frequent first. Pure."""
    groups: dict[str, list[Failed]] = {}
    for each in failed:
        groups.setdefault(cause_of(each.last_error), []).append(each)
    begin = min((each.at for each in failed), default=datetime.min)
    end = max((each.at for each in failed), default=datetime.min)
    causes = [_cause(reason, members, begin, end) for reason, members in groups.items()]
    return sorted(causes, key=lambda cause: (-cause.count, cause.reason))


def cause_of(reason: str | None) -> str:
    """The reason without what differs from message to message."""
    return _VARYING.sub("…", (reason or "no reason was given").splitlines()[0])[:300]


def _cause(reason: str, members: list[Failed], begin: datetime, end: datetime) -> Cause:
    times = [member.at for member in members]
    return Cause(
        reason=reason,
        # The longest part that all of them share finds them again.
        needle=max(reason.split("…"), key=len).strip(),
        count=len(members),
        tasks=Counter(member.task for member in members).most_common(4),
        queues=Counter(member.routing_key for member in members).most_common(4),
        first=min(times),
        last=max(times),
        trend=_trend(times, begin, end),
    )


def _trend(times: list[datetime], begin: datetime, end: datetime) -> list[int]:
    part = max((end - begin) / PARTS, timedelta(microseconds=1))
    counts = Counter(min(PARTS - 1, int((time - begin) / part)) for time in times)
    return [counts[number] for number in range(PARTS)]
