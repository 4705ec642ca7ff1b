"""A place that messages go, and what their rows would have declared there."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any


@lru_cache(4096)
def queues_of(exchange: str, routing_key: str, declarations: str) -> tuple[str, ...]:
    """The queues that messages with these are known to reach."""
    return tuple(Route(exchange, routing_key, True, declarations, 0).queues)


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
    def queues(self) -> list[str]:
        """The queues it is known to lead to: bindings made by others are not known."""
        return self.declared_queues if self.exchange else [self.routing_key]

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
