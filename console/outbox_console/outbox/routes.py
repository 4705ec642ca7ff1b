"""Where messages go, and what waits there: exact while little waits, from a sample beyond.

A sample is some pages of the narrow work rows, so that a million rows cost no more than a few
thousand do. It is taken from the same pages for some minutes, as those are in memory by then.
"""

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Final

from outbox_console.outbox.samples import Counts
from outbox_console.postgres.database import Session

#: Pages of each table that are read at most: together some three thousand rows.
PAGES: Final = 12
#: Where so few wait that all of them can be read, the tables may be this large: what was sent
#: lately has left its pages empty, and a few of them would hold nothing of what waits.
FEW: Final = 1000
PAGES_OF_FEW: Final = 1000

#: Seconds for which a sample is of the same pages.
SAME_FOR: Final = 600

#: The part of each table that is read, in per cent.
PARTS: Final = f"""
SELECT least(100, 100.0 * %(pages)s / greatest(pg_relation_size('{{outbox}}.ready') / block, 1))
           AS ready,
       least(100, 100.0 * %(pages)s / greatest(pg_relation_size('{{outbox}}.lane') / block, 1))
           AS lane,
       least(100, 100.0 * %(pages)s / greatest(pg_relation_size('{{outbox}}.parked') / block, 1))
           AS parked,
       floor(extract(epoch FROM now()) / {SAME_FOR})::float8 AS seed
  FROM (SELECT current_setting('block_size')::float8 AS block) server
"""

#: Each row of a sample stands for as many as its part says. Of what was sent only the routes are of
#: use: those of the newest few hundred messages.
ROUTES: Final = """
WITH work AS (
    SELECT id, slot, 'pending' AS state, 100 / %(ready)s::float8 AS weight
      FROM {outbox}.ready TABLESAMPLE SYSTEM (%(ready)s::real) REPEATABLE (%(seed)s)
    UNION ALL
    SELECT id, slot, 'pending', 100 / %(lane)s::float8
      FROM {outbox}.lane TABLESAMPLE SYSTEM (%(lane)s::real) REPEATABLE (%(seed)s)
    UNION ALL
    SELECT id, slot,
           CASE WHEN state = 'dead' THEN 'dead'
                WHEN state = 'scheduled' AND available_at > now() THEN 'scheduled'
                ELSE 'pending' END,
           100 / %(parked)s::float8
      FROM {outbox}.parked TABLESAMPLE SYSTEM (%(parked)s::real) REPEATABLE (%(seed)s)
    UNION ALL
    (SELECT id, slot, 'known', 0 FROM {outbox}.message ORDER BY id DESC LIMIT 300)
)
SELECT m.exchange, m.routing_key,
       round(coalesce(sum(w.weight) FILTER (WHERE w.state = 'pending'), 0))::bigint AS pending,
       round(coalesce(sum(w.weight) FILTER (WHERE w.state = 'scheduled'), 0))::bigint AS scheduled,
       round(coalesce(sum(w.weight) FILTER (WHERE w.state = 'dead'), 0))::bigint AS dead,
       min(m.due) FILTER (WHERE w.state = 'pending') AS oldest,
       (array_agg(DISTINCT m.task::text))[1:4] AS tasks
  FROM work w
 CROSS JOIN LATERAL (
    SELECT exchange, routing_key, task, coalesce(available_at, created_at) AS due
      FROM {outbox}.message WHERE id = w.id AND slot = w.slot OFFSET 0) m
 GROUP BY 1, 2 ORDER BY 3 DESC, 5 DESC, 4 DESC, 1, 2 LIMIT 200
"""

#: What people hold back on purpose, the newest first.
PAUSED: Final = """
SELECT target, reason, since, until, who, messages FROM {outbox}.paused
 ORDER BY since DESC LIMIT 100
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """How much of each table is read, in per cent; and what the choice of pages depends on."""

    ready: float
    lane: float
    parked: float
    seed: float

    @property
    def estimated(self) -> frozenset[str]:
        """The states whose counts are estimates: what is pending is in all three tables."""
        pending = min(self.ready, self.lane, self.parked) < 100
        others = {"scheduled", "dead"} if self.parked < 100 else set()
        return frozenset(others | ({"pending"} if pending else set()))


@dataclass(frozen=True, slots=True)
class Route:
    """Exchange and routing key, and what waits to go there."""

    exchange: str
    routing_key: str
    pending: int
    scheduled: int
    dead: int
    oldest: datetime | None
    tasks: list[str]


@dataclass(frozen=True, slots=True)
class Pause:
    """What is held back, such as `queue:mail`, by whom and why; `until` is None for no end."""

    target: str
    reason: str
    since: datetime
    until: datetime | None
    who: str
    messages: int


@dataclass(frozen=True, slots=True)
class Routes:
    """All of them, and what is paused; `estimated` are the states whose counts are of a sample."""

    routes: list[Route]
    estimated: frozenset[str]
    paused: list[Pause]


async def read(session: Session, totals: Counts | None) -> Routes:
    """The routes, those with most pending messages first; estimates add up to the totals."""
    (parts,) = await session.fetch(Parts, PARTS, pages=pages_for(totals))
    routes = await session.fetch(Route, ROUTES, **asdict(parts))
    if totals is not None:
        routes = scaled(routes, totals, parts.estimated)
    return Routes(routes, parts.estimated, await session.fetch(Pause, PAUSED))


def pages_for(totals: Counts | None) -> int:
    """How many pages of a table are read at most. Pure."""
    if totals is None or totals.pending + totals.scheduled + totals.dead > FEW:
        return PAGES
    return PAGES_OF_FEW


def scaled(routes: list[Route], totals: Counts, estimated: frozenset[str]) -> list[Route]:
    """The same, so that each estimated state comes to as many as there are. Pure.

    How the routes share them is what a sample of a few pages tells; how many there are it does not.
    """
    factors = {}
    for state in estimated:
        seen = sum(getattr(route, state) for route in routes)
        factors[state] = getattr(totals, state) / seen if seen else 0.0
    return [
        replace(route, **{s: round(getattr(route, s) * factor) for s, factor in factors.items()})
        for route in routes
    ]
