"""What waits for its route, for the end of a hold, or for room in its queue. Pure.

All wait in one place, under a key, and are claimed from there in one way.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from outbox_relay.core.claim import ClaimedRow, RouteClaim
from outbox_relay.core.depths import KIND, Depths
from outbox_relay.core.guard import Guard
from outbox_relay.core.holds import Hold, Holds, is_key, key_of, target_of
from outbox_relay.core.message import Message, Refusal
from outbox_relay.core.pauses import Pauses

NOTHING: Final = RouteClaim((), ())


class Waiting:
    """Claims for routes that are tried again, and for what is not held any more."""

    def __init__(self, pauses: Pauses, guard: Guard | None, depths: Depths | None) -> None:
        self._pauses = pauses
        self._guard = guard
        self._holds = Holds()
        self._depths = depths

    def __bool__(self) -> bool:
        """Whether there is anything to claim, or to wait for."""
        deep = self._depths is not None and self._depths.waiting
        return bool(self._pauses) or self._holds.letting_go or deep

    def sort(self, messages: list[Message], now: float) -> tuple[list[Message], list[Refusal]]:
        """Those that nothing holds: no pause, no guard, no full queue; and the others."""
        allowed, held = self._holds.sort(messages)
        if self._guard is not None:
            allowed, unknown = self._guard.sort(allowed)
            held += unknown
        if self._depths is not None:
            allowed, deep = self._depths.sort(allowed, now)
            held += deep
        return allowed, held

    def hold(self, holds: Sequence[Hold]) -> None:
        """Only this is paused from now on."""
        self._holds.replace(holds)

    def claim(self, now: float, room: int) -> RouteClaim | None:
        """What to take of it."""
        claim = self._pauses.claim(now, room) or NOTHING
        claim += self._holds.claim(room - claim.limit) or NOTHING
        if self._depths is not None:
            claim += self._depths.claim(now, room - claim.limit) or NOTHING
        return claim if claim.routes else None

    def claimed(
        self, claim: RouteClaim, found: Sequence[tuple[ClaimedRow, str]], now: float
    ) -> None:
        """What was found, each with what it waited for."""
        keys = [key for key in claim.routes if is_key(key)]
        there = {key for _, key in found}
        self._holds.claimed(keys, there)
        if self._depths is not None:
            self._depths.claimed(keys, there)
        limits = dict(zip(claim.routes, claim.limits, strict=True))
        routes = tuple(route for route in claim.routes if not is_key(route))
        tried = RouteClaim(routes, tuple(limits[route] for route in routes))
        of_routes = [(row.id, route) for row, route in found if not is_key(route)]
        self._pauses.claimed(tried, of_routes, now)

    def found(self, written: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        keys = list(written)
        self._pauses.found_waiting(key for key in keys if not is_key(key))
        targets = [target_of(key) for key in keys if is_key(key)]
        if self._depths is not None:
            self._depths.found(target for target in targets if target.startswith(KIND))
            targets = [target for target in targets if not target.startswith(KIND)]
        self._holds.found(map(key_of, targets))
