"""Where messages go: the distinct routes of a bounded sample of what is unsent and newly sent."""

import json
from dataclasses import dataclass
from typing import Any, Final

from outbox_relay.commands.session import Session

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


@dataclass(frozen=True, slots=True)
class Route:
    """One place messages go, and how many of the sample are still to go there."""

    exchange: str
    routing_key: str
    mandatory: bool
    declarations: str
    unsent: int

    def declares_queue(self, name: str) -> bool:
        """Whether the relay would declare this queue before publishing."""
        return any(e.get("kind") == "queue" and e.get("name") == name for e in self._entities())

    @property
    def declared_queues(self) -> list[str]:
        """The queues the relay would declare and bind."""
        return [str(e.get("name")) for e in self._entities() if e.get("kind") == "queue"]

    @property
    def declares_exchange(self) -> bool:
        """Whether the relay would declare the exchange of this route."""
        return any(
            (e if e.get("kind") == "exchange" else e.get("exchange", {})).get("name")
            == self.exchange
            for e in self._entities()
        )

    def _entities(self) -> list[dict[str, Any]]:
        try:
            entities = json.loads(self.declarations)
        except ValueError:
            return []
        return [e for e in entities if isinstance(e, dict)] if isinstance(entities, list) else []


def sample(session: Session) -> list[Route]:
    """The routes, those with most unsent messages first."""
    return session.fetch(Route, ROUTES)
