"""Which routes take messages, and how fast to try those that lately did not. Pure.

A route is an exchange and a routing key. One that refuses is paused, twice as long each time; the
messages for it wait in the database, unpublished and at no cost. After the pause a single message
is the probe. Once it is confirmed, a portion follows, and a larger one each time all of a portion
is confirmed, until none waits: a queue that is nearly full is not flooded with all that waited.

Each relay has a memory of its own. What waits is written down with its route, so that one that
starts, or comes to know of a route from another, finds it there and probes it.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from outbox_relay.core.claim import RouteClaim
from outbox_relay.core.message import Message, Reason, Refusal

#: Refusals by which a route says that it takes nothing now, whichever message it is.
PAUSING: Final = frozenset({Reason.NACKED, Reason.FORBIDDEN, Reason.UNANSWERED})
#: The longest pause, in seconds.
MAX_PAUSE: Final = 60.0
#: How many times larger each portion is, and the largest.
GROWTH: Final = 4
MAX_PORTION: Final = 1024
#: After so long without word of a probe or a portion (its claim was lost, say), another probe goes.
PROBE_PATIENCE: Final = 30.0
#: The most routes remembered, and the most that are claimed for at once.
MAX_ROUTES: Final = 10_000
MAX_CLAIMED_ROUTES: Final = 32
#: How often the database is asked which routes have messages waiting, in seconds.
LOOK_EVERY: Final = 10.0
#: Stands between exchange and routing key where a route is written down.
SEPARATOR: Final = "\x1f"

Route = tuple[str, str]


def route_of(message: Message) -> Route:
    """Where a message goes."""
    return message.exchange, message.routing_key


def written(route: Route) -> str:
    """A route as the database has it."""
    return SEPARATOR.join(route)


@dataclass(slots=True)
class _State:
    """A route that refused: paused while `portion` is 0, else being tried."""

    refusals: int = 0
    until: float = -inf  # the next probe
    portion: int = 0  # how many may be on their way
    left: int = 0  # of these, how many are still to be let through
    confirmed: int = 0  # of these, how many have been
    waiting: bool = True  # there may be messages in the database
    apart: bool = False  # what is refused takes its channel with it
    silent: bool = False  # it gave no answer, and may yet confirm what it has
    why: str = "another relay, or this one before it was restarted, found that it takes none"

    def probe(self, now: float) -> None:
        """One message may pass."""
        self.portion, self.left, self.confirmed = 1, 1, 0
        self.until = now + PROBE_PATIENCE


class Pauses:
    """The routes that refused lately; a route that is not here takes whatever there is."""

    def __init__(self, first_pause: float) -> None:
        self._first_pause = first_pause
        self._routes: dict[Route, _State] = {}
        self._let_through: set[int] = set()  # by the claim that was made for them
        self._next_look = 0.0

    def __len__(self) -> int:
        return len(self._routes)

    def let_through(self, message: Message, now: float) -> bool:
        """Whether this message may be published now; asked once for each claim of it."""
        state = self._routes.get(route_of(message))
        if message.id in self._let_through:
            self._let_through.remove(message.id)
            return True
        if state is None:
            return True
        if now >= state.until:
            state.probe(now)
        if not state.left:
            state.waiting = True
            return False
        state.left -= 1
        return True

    def keep_letting_through(self, message: Message) -> None:
        """It was let through, and will be asked about once more."""
        if route_of(message) in self._routes:
            self._let_through.add(message.id)

    def apart(self, message: Message) -> bool:
        """Whether it would take a channel with it, if it is refused as others of its route were."""
        state = self._routes.get(route_of(message))
        return state is not None and state.apart

    def held(self, message: Message) -> Refusal:
        """The refusal of a message that was not let through."""
        why = self._routes[route_of(message)].why
        return Refusal(message, Reason.HELD, f"one of its route is tried first: {why}")

    def refused(self, refusals: Iterable[Refusal], now: float) -> None:
        """These came back; those that were on their way when the pause began prolong nothing."""
        for refusal in refusals:
            if refusal.reason not in PAUSING:
                continue
            if len(self._routes) >= MAX_ROUTES:
                self._routes.pop(next(iter(self._routes)))  # found again by those that wait
            state = self._routes.setdefault(route_of(refusal.message), _State())
            state.waiting = True
            if state.portion == 0 and now < state.until:
                continue
            state.refusals += 1
            pause = min(MAX_PAUSE, self._first_pause * 2.0 ** min(state.refusals - 1, 30))
            state.until = now + pause * random.uniform(1, 1.25)
            state.portion = state.left = state.confirmed = 0
            state.apart = refusal.reason is Reason.FORBIDDEN
            state.silent = refusal.reason is Reason.UNANSWERED
            state.why = f"{refusal.reason}: {refusal.detail}"

    def confirmed(self, messages: Iterable[Message], now: float) -> None:
        """Their routes take messages: once all of a portion are in, a larger one follows."""
        for message in messages if self._routes else ():
            state = self._routes.get(route_of(message))
            if state is not None and state.silent and not state.portion:
                state.until = min(state.until, now)  # it speaks again: try it at once
            if state is None or not state.portion:
                continue
            state.confirmed += 1
            if state.confirmed >= state.portion:
                state.refusals, state.confirmed = 0, 0
                state.portion = state.left = min(MAX_PORTION, GROWTH * state.portion)
                state.until = now + PROBE_PATIENCE

    def look_due(self, now: float) -> bool:
        """Whether to ask the database by now which routes have messages waiting."""
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_EVERY
        return True

    def found_waiting(self, routes: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        for name in routes:
            exchange, _, routing_key = name.partition(SEPARATOR)
            if len(self._routes) < MAX_ROUTES:
                self._routes.setdefault((exchange, routing_key), _State()).waiting = True

    def pause(self, now: float) -> float:
        """Seconds until a probe or a portion may go; 0 or less: there is one to be claimed."""
        return (
            min(
                (
                    now if state.waiting and state.left else state.until
                    for state in self._routes.values()
                ),
                default=inf,
            )
            - now
        )

    def claim(self, now: float, room: int) -> RouteClaim | None:
        """What to take of the messages that wait: probes that are due, and portions."""
        limits: dict[str, int] = {}
        for route, state in self._routes.items():
            if not room or len(limits) == MAX_CLAIMED_ROUTES:
                break
            wanted = 1 if now >= state.until else state.left if state.waiting else 0
            if limit := min(wanted, room):
                limits[written(route)] = limit
                room -= limit
        return RouteClaim(tuple(limits), tuple(limits.values())) if limits else None

    def claimed(self, claim: RouteClaim, found: Sequence[tuple[int, str]], now: float) -> None:
        """The ids that were found, each with its route; a route for which none waits is well."""
        counts = dict.fromkeys(claim.routes, 0)
        for id_, name in found:
            self._let_through.add(id_)
            counts[name] += 1
        for name, limit in zip(claim.routes, claim.limits, strict=True):
            exchange, _, routing_key = name.partition(SEPARATOR)
            if (state := self._routes.get((exchange, routing_key))) is None:
                continue
            if now >= state.until:
                state.probe(now)
            state.left = max(0, state.left - counts[name])
            state.waiting = counts[name] == limit
            if not counts[name]:
                del self._routes[exchange, routing_key]

    def forget(self, ids: Iterable[int]) -> None:
        """These are not ours any more."""
        self._let_through.difference_update(ids)
