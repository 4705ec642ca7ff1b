"""Where messages go, and what waits there: exact while little waits, from a sample beyond.

A sample is some pages of the narrow work rows, so that a million rows cost no more than a few
thousand do.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from outbox_console.postgres.database import Session

#: Pages of each table that are read at most: together some five thousand rows.
PAGES: Final = 20

#: The part of each table that is read, in per cent, and how many rows there are (outbox.stats).
PARTS: Final = f"""
SELECT least(100, 100.0 * {PAGES} / greatest(pg_relation_size('{{outbox}}.ready') / block, 1))
           AS ready,
       least(100, 100.0 * {PAGES} / greatest(pg_relation_size('{{outbox}}.lane') / block, 1))
           AS lane,
       least(100, 100.0 * {PAGES} / greatest(pg_relation_size('{{outbox}}.parked') / block, 1))
           AS parked,
       {{outbox}}.rough_count('{{outbox}}.ready', 'true') AS ready_rows,
       {{outbox}}.rough_count('{{outbox}}.lane', 'true') AS lane_rows,
       {{outbox}}.rough_count('{{outbox}}.parked', 'true') AS parked_rows
  FROM (SELECT current_setting('block_size')::float8 AS block) server
"""

#: Each row of a sample stands for as many as there are rows for each of them. Of what was sent only
#: the routes are of use: those of the newest thousand messages.
ROUTES: Final = """
WITH work AS (
    SELECT id, slot, 'pending' AS state, %(ready_rows)s::float8 / count(*) OVER () AS weight
      FROM {outbox}.ready TABLESAMPLE SYSTEM (%(ready)s::real)
    UNION ALL
    SELECT id, slot, 'pending', %(lane_rows)s::float8 / count(*) OVER ()
      FROM {outbox}.lane TABLESAMPLE SYSTEM (%(lane)s::real)
    UNION ALL
    SELECT id, slot,
           CASE WHEN state = 'dead' THEN 'dead'
                WHEN state = 'scheduled' AND available_at > now() THEN 'scheduled'
                ELSE 'pending' END,
           %(parked_rows)s::float8 / count(*) OVER ()
      FROM {outbox}.parked TABLESAMPLE SYSTEM (%(parked)s::real)
    UNION ALL
    (SELECT id, slot, 'known', 0 FROM {outbox}.message ORDER BY id DESC LIMIT 1000)
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


@dataclass(frozen=True, slots=True)
class Parts:
    """How much of each table is read, in per cent, and how many rows it has."""

    ready: float
    lane: float
    parked: float
    ready_rows: int
    lane_rows: int
    parked_rows: int

    @property
    def is_sample(self) -> bool:
        """Whether the counts are estimates."""
        return min(self.ready, self.lane, self.parked) < 100


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
class Routes:
    """All of them; `estimated` where the counts are of a sample."""

    routes: list[Route]
    estimated: bool


async def read(session: Session) -> Routes:
    """The routes, those with most pending messages first."""
    (parts,) = await session.fetch(Parts, PARTS)
    return Routes(await session.fetch(Route, ROUTES, **asdict(parts)), parts.is_sample)
