"""What waits for its route, the end of a hold, room in its queue, or its turn. Pure.

All wait in one place, under a key, and are claimed from there in one way: the most urgent first,
and with every fourth claim of a key the oldest, so that none waits for ever. Half of a claim at
most is for probes and portions of routes that refused, half of the rest for all else that waits, in
equal shares: the others flow meanwhile, and none that waits starves another.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from outbox_relay.core.claim import ClaimedRow, RouteClaim
from outbox_relay.core.depths import Depths
from outbox_relay.core.guard import Guard
from outbox_relay.core.holds import DEPTH, RATE, Hold, Holds, is_key, key_of, target_of
from outbox_relay.core.message import Message, Refusal
from outbox_relay.core.pauses import Pauses
from outbox_relay.core.rates import Grant, Rates
from outbox_relay.core.share import share

NOTHING: Final = RouteClaim((), ())
#: Of so many claims for a key, one takes what has waited longest.
BY_AGE_EVERY: Final = 4
#: The most keys of which it is remembered how many claims there were.
MAX_COUNTED: Final = 10_000


class Waiting:
    """Claims for routes that are tried again, and for what is not held any more."""

    def __init__(self, pauses: Pauses, guard: Guard | None, deep: Depths | None) -> None:
        self._pauses = pauses
        self._guard = guard
        self._holds = Holds()
        self._depths = deep
        self._rates = Rates()
        self._claims = 0
        self._served: dict[str, int] = {}  # by which claim each key that has a wish was served last
        self._turns: dict[str, int] = {}  # how many claims there were for each key

    def __bool__(self) -> bool:
        """Whether there is anything to claim, or to wait for."""
        deep = self._depths is not None and self._depths.waiting
        return bool(self._pauses) or self._holds.letting_go or deep or self._rates.waiting

    def sort(self, messages: list[Message], now: float) -> tuple[list[Message], list[Refusal]]:
        """Those that nothing holds: no pause, guard, full queue or rate; and the others."""
        allowed, held = self._holds.sort(messages)
        if self._guard is not None:
            allowed, unknown = self._guard.sort(allowed)
            held += unknown
        if self._depths is None or self._depths.free(allowed, now):
            allowed, limited = self._rates.sort(allowed)
        else:  # what has no room takes no token, and what has no token takes no room
            allowed, limited = self._depths.sort(allowed, now, self._rates.judge)
        held += limited
        self._rates.give_back(refusal.message for refusal in held)
        return allowed, held

    def hold(self, holds: Sequence[Hold]) -> None:
        """Only this is paused, or sent no faster than that, from now on."""
        self._holds.replace([hold for hold in holds if hold.per_second is None])
        limits = [hold for hold in holds if hold.per_second is not None]
        self._holds.found(map(key_of, self._rates.replace(limits)))
        kept = self._holds.keep(key_of(RATE + limit.target) for limit in limits)
        self._rates.found(map(target_of, kept))

    def wanted(self, now: float) -> dict[str, int]:
        """How many tokens to ask for, by the target of the limit."""
        return self._rates.wanted(now)

    def granted(self, grants: Iterable[Grant], now: float) -> None:
        """So many were given."""
        self._rates.granted(grants, now)

    def ready(self, now: float) -> bool:
        """Whether a claim would take anything of it."""
        deep = self._depths is not None and self._depths.wishes(now)
        tried = self._pauses.pause(now) <= 0
        return bool(self._holds.letting_go or self._rates.wishes(now) or deep or tried)

    def pause(self, now: float) -> float:
        """Seconds until a token is to be asked for or used, or a route that refused is tried."""
        return min(self._rates.pause(now), self._pauses.pause(now))

    def claim(self, now: float, room: int) -> RouteClaim | None:
        """What to take of it."""
        if not self:
            return None
        self._claims += 1
        if room == 1 and self._claims % 2:  # it cannot be halved: every other time
            return None
        claim = self._pauses.claim(now, _half(room)) or NOTHING
        claim += self._shared(now, _half(room - claim.limit))
        return replace(claim, by_age=self._by_age(claim.routes)) if claim.routes else None

    def _by_age(self, keys: Collection[str]) -> frozenset[str]:
        """Of which keys the oldest have their turn."""
        if len(self._turns) > MAX_COUNTED:
            self._turns.clear()
        for key in keys:
            self._turns[key] = self._turns.get(key, 0) + 1
        return frozenset(key for key in keys if self._turns[key] % BY_AGE_EVERY == 0)

    def _shared(self, now: float, room: int) -> RouteClaim:
        """What each gets of so much, those that have waited longest for their share first."""
        wishes = self._holds.wishes() | self._rates.wishes(now)
        if self._depths is not None:
            wishes |= self._depths.wishes(now)
        self._served = {key: self._served.get(key, 0) for key in wishes}
        shares = share(
            {key: wishes[key] for key in sorted(wishes, key=self._served.__getitem__)}, room
        )
        self._served.update(dict.fromkeys(shares, self._claims))
        return RouteClaim(tuple(shares), tuple(shares.values()))

    def claimed(
        self, claim: RouteClaim, found: Sequence[tuple[ClaimedRow, str]], now: float
    ) -> None:
        """What was found, each with what it waited for."""
        keys = [key for key in claim.routes if is_key(key)]
        there = {key for _, key in found}
        self._holds.claimed(keys, there)
        if self._depths is not None:
            self._depths.claimed(keys, there)
        self._rates.claimed(keys, ((row.id, key) for row, key in found))
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
        rated = [t for t in targets if t.startswith(RATE) and self._rates.knows(t)]
        self._rates.found(rated)
        deep = [t for t in targets if t.startswith(DEPTH) and self._depths is not None]
        if self._depths is not None:
            self._depths.found(deep)
        self._holds.found(key_of(target) for target in targets if target not in {*rated, *deep})


def _half(room: int) -> int:
    """Rounded down, but one at least of what is there."""
    return max(1, room // 2) if room > 0 else 0
