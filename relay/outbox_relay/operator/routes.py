"""Where messages go: the distinct routes of a bounded sample of what is unsent and newly sent."""

from typing import Final

from outbox_relay.core.route import Route
from outbox_relay.operator.session import Session

#: A thousand from each end of each kind: never a walk through the backlog.
ROUTES: Final = """
WITH sample AS (
    (SELECT id, slot, true AS unsent FROM {outbox}.ready ORDER BY id LIMIT 1000)
    UNION ALL
    (SELECT id, slot, true FROM {outbox}.ready ORDER BY id DESC LIMIT 1000)
    UNION ALL
    (SELECT id, slot, true FROM {outbox}.parked WHERE state = 'retry' ORDER BY id LIMIT 1000)
    UNION ALL
    (SELECT id, slot, true FROM {outbox}.parked WHERE state = 'dead' ORDER BY id DESC LIMIT 1000)
    UNION ALL
    (SELECT id, slot, true FROM {outbox}.parked WHERE state <> 'dead'
      ORDER BY available_at LIMIT 1000)
    UNION ALL
    (SELECT id, slot, false FROM {outbox}.message ORDER BY id DESC LIMIT 1000)
)
SELECT m.exchange, m.routing_key, m.mandatory, m.declare::text AS declarations,
       count(DISTINCT m.id) FILTER (WHERE s.unsent) AS unsent
FROM sample s JOIN {outbox}.message m ON m.id = s.id AND m.slot = s.slot
GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC LIMIT 50
"""


def sample(session: Session) -> list[Route]:
    """The routes, those with most unsent messages first."""
    return session.fetch(Route, ROUTES)
