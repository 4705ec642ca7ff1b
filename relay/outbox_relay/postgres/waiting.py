"""Messages that wait for their route: which routes these are, and claims of a few of them.

Such a claim takes them out of `parked` and leases them in one statement, so that a probe is
published by the relay that chose it, and by no other, which may still think the route paused.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from outbox_relay.core.claim import ClaimedRow, RouteClaim
from outbox_relay.postgres.literals import bigints, texts
from outbox_relay.postgres.pipeline import Query
from outbox_relay.postgres.statement import Statement

#: Up to a limit for each route, by rank, or where that is asked for by age. Whose id another
#: message has in `ready` waits on. Two conditions are written so that the planner has one index for
#: each order, whatever the statistics say: of BETWEEN it does not know that it means one value, of
#: which any index would have the order; and `state = 'retry'` would do for an index of its own.
CLAIM_WAITING: Final = Statement(
    "claim_waiting",
    """
WITH due AS (
    DELETE FROM {outbox}.parked
    WHERE id = ANY (ARRAY(
        SELECT p.id
        FROM unnest(%(routes)s::text[], %(limits)s::bigint[], %(by_age)s::boolean[])
                 AS wanted (route, most, by_age),
             LATERAL (
                 SELECT id FROM (
                     SELECT id FROM {outbox}.parked w
                     WHERE route BETWEEN wanted.route AND wanted.route
                       AND left(state, 5) = 'retry' AND NOT EXISTS (
                         SELECT FROM {outbox}.ready r
                         WHERE r.id = w.id AND r.slot <> w.slot OFFSET 0)
                     ORDER BY route, rank, id
                     LIMIT CASE WHEN wanted.by_age THEN 0 ELSE wanted.most END
                     FOR UPDATE SKIP LOCKED) urgent
                 UNION ALL
                 SELECT id FROM (
                     SELECT id FROM {outbox}.parked w
                     WHERE route BETWEEN wanted.route AND wanted.route
                       AND left(state, 5) = 'retry' AND NOT EXISTS (
                         SELECT FROM {outbox}.ready r
                         WHERE r.id = w.id AND r.slot <> w.slot OFFSET 0)
                     ORDER BY route, id
                     LIMIT CASE WHEN wanted.by_age THEN wanted.most ELSE 0 END
                     FOR UPDATE SKIP LOCKED) oldest) p))
    RETURNING id, slot, attempts, suspicion, last_error, lane, route
), made AS (
    INSERT INTO {outbox}.ready
        (id, slot, attempts, suspicion, last_error, lane, claim_id, lease_until)
    SELECT id, slot, attempts, suspicion, last_error, lane,
           %(claim_id)s::bigint, now() + %(lease_seconds)s * interval '1 second'
    FROM due
    ON CONFLICT (id) DO NOTHING
    RETURNING id
)
SELECT id, slot, attempts, suspicion, route FROM due WHERE id IN (SELECT id FROM made)
""",
)

#: How many routes one look names at most; the next goes on behind them.
MAX_ROUTES: Final = 1000
#: Each is one look-up in the index, however many messages wait.
ROUTES: Final = Statement(
    "waiting_routes",
    """
WITH RECURSIVE route AS (
    (SELECT route FROM {outbox}.parked WHERE route > %(above)s ORDER BY route LIMIT 1)
    UNION ALL
    SELECT (SELECT p.route FROM {outbox}.parked p WHERE p.route > r.route
            ORDER BY p.route LIMIT 1)
    FROM route r WHERE r.route IS NOT NULL
)
SELECT route FROM route WHERE route IS NOT NULL LIMIT %(limit)s
""",
)


class Routes:
    """The routes that messages wait for, some at each look: all of them have their turn."""

    def __init__(self, run: Callable[..., list[Any]]) -> None:
        self._run = run
        self._above = ""

    def next(self) -> list[str]:
        """Those that come after the last look's; from the first on, where these were the last."""
        found = self._run(ROUTES, {"above": self._above, "limit": MAX_ROUTES})
        routes = [route for (route,) in found]
        self._above = routes[-1] if len(routes) == MAX_ROUTES else ""
        return routes


def query(claim: RouteClaim, lease: Mapping[str, object]) -> Query:
    """The claim as a statement to run."""
    by_age = ["t" if route in claim.by_age else "f" for route in claim.routes]
    wanted = {
        "routes": texts(claim.routes),
        "limits": bigints(claim.limits),
        "by_age": texts(by_age),
    }
    return Query(CLAIM_WAITING, {**wanted, **lease})


def rows(found: list[Any]) -> list[tuple[ClaimedRow, str]]:
    """What was claimed, each with the route it waited for."""
    return [(ClaimedRow(*row), route) for *row, route in found]
