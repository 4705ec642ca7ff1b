"""What waits for its route, or for the end of a hold. Pure.

Both wait in one place, under a key, and are claimed from there in one way.
"""

from collections.abc import Iterable, Sequence

from outbox_relay.core.claim import ClaimedRow, RouteClaim
from outbox_relay.core.holds import Holds, is_key
from outbox_relay.core.pauses import Pauses


class Waiting:
    """Claims for routes that are tried again, and for what is not held any more."""

    def __init__(self, pauses: Pauses, holds: Holds) -> None:
        self._pauses = pauses
        self._holds = holds

    def __bool__(self) -> bool:
        """Whether there is anything to claim, or to wait for."""
        return bool(self._pauses) or self._holds.letting_go

    def claim(self, now: float, room: int) -> RouteClaim | None:
        """What to take of it."""
        tried = self._pauses.claim(now, room)
        let_go = self._holds.claim(room - (tried.limit if tried else 0))
        if not (tried and let_go):
            return tried or let_go
        return RouteClaim(tried.routes + let_go.routes, tried.limits + let_go.limits)

    def claimed(
        self, claim: RouteClaim, found: Sequence[tuple[ClaimedRow, str]], now: float
    ) -> None:
        """What was found, each with what it waited for."""
        self._holds.claimed(filter(is_key, claim.routes), (key for _, key in found))
        limits = dict(zip(claim.routes, claim.limits, strict=True))
        routes = tuple(route for route in claim.routes if not is_key(route))
        tried = RouteClaim(routes, tuple(limits[route] for route in routes))
        of_routes = [(row.id, route) for row, route in found if not is_key(route)]
        self._pauses.claimed(tried, of_routes, now)

    def found(self, written: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        keys = list(written)
        self._holds.found(filter(is_key, keys))
        self._pauses.found_waiting(key for key in keys if not is_key(key))
