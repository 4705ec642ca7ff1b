"""How many more messages each queue may get, so that none holds more than a limit. Pure.

Somebody else asks the broker how many messages of each queue are ready, and says so; here it is
reckoned how many more may be published until the next answer. Once a queue is full, its messages
are set aside in the database, until a fifth of the limit is free again; then as many as there is
room for are claimed from there, oldest first.

A queue that the broker does not show counts as empty, and while nothing is heard none is held: a
broker that does not tell starves nobody. What is counted is what was let through, so that a queue
holds no more than the limit and what was in flight when the broker was asked.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from outbox_relay.core.claim import RouteClaim
from outbox_relay.core.holds import LOOK_AGAIN, key_of
from outbox_relay.core.message import Message, Reason, Refusal, Wait
from outbox_relay.core.route import queues_of

#: A target of this kind is held by its depth: `depth:mail`.
KIND: Final = "depth:"
#: A queue that was full takes messages again once so much of the limit is left in it.
LOW: Final = 0.8
#: How many may pass before anything is known of a queue.
AT_FIRST: Final = 100
#: What was heard so long ago, in seconds, is not believed any more.
STALE: Final = 15.0
#: The most queues remembered, and the most that are asked about.
MAX_QUEUES: Final = 1000
MAX_WATCHED: Final = 50


@dataclass(frozen=True, slots=True)
class Soundings:
    """The depth of each queue that the broker shows, and what had passed when it was asked."""

    passed: Mapping[str, int] = field(default_factory=dict)
    depths: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Level:
    """What is known of one queue."""

    room: int
    passed: int = 0
    heard: float | None = None  # when, or else since when it is waited for
    known: bool = False
    full: bool = False
    waiting: bool = False  # there may be messages in the database

    def open(self, now: float) -> bool:
        """Whether another message may pass."""
        self.heard = now if self.heard is None else self.heard
        return self.room > 0 or now - self.heard > STALE

    def take(self) -> None:
        """One has passed."""
        self.passed += 1
        self.room = max(0, self.room - 1)
        self.full = self.full or (self.known and not self.room)


class Depths:
    """The queues that messages go to. `tell` and `watched` may be called from another thread."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._levels: dict[str, _Level] = {}
        self._news: Soundings | None = None

    @property
    def waiting(self) -> bool:
        """Whether messages may wait for room."""
        return any(level.waiting for level in self._levels.values())

    def watched(self) -> dict[str, int]:
        """The queues to ask about, those with waiting messages first, with what has passed."""
        levels = list(self._levels.items())  # at once: the loop goes on meanwhile
        levels.sort(key=lambda each: not each[1].waiting)
        return {queue: level.passed for queue, level in levels[:MAX_WATCHED]}

    def tell(self, soundings: Soundings) -> None:
        """The broker has answered."""
        self._news = soundings

    def sort(self, messages: list[Message], now: float) -> tuple[list[Message], list[Refusal]]:
        """Those for which there is room, and the others, which wait."""
        self._hear(now)
        allowed: list[Message] = []
        held: list[Refusal] = []
        for message in messages:
            queues = _queues(message.exchange, message.routing_key, message.declare)
            levels = [(queue, self._level(queue)) for queue in queues]
            full = next((queue for queue, level in levels if not level.open(now)), None)
            if full is None:
                for _, level in levels:
                    level.take()
                allowed.append(message)
            else:
                self._levels[full].waiting = True
                held.append(self._refusal(message, full))
        return allowed, held

    def found(self, targets: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        for target in targets:
            self._level(target.removeprefix(KIND)).waiting = True

    def claim(self, now: float, room: int) -> RouteClaim | None:
        """What to take of the messages that wait, into queues that have room: half of the room."""
        self._hear(now)
        left = max(1, room // 2) if room else 0
        limits: dict[str, int] = {}
        for queue, level in self._levels.items():
            if not (level.waiting and level.open(now)):
                continue
            known = level.room if level.room > 0 else left
            if most := min(known, left):
                limits[key_of(KIND + queue)] = most
                left -= most
        return RouteClaim(tuple(limits), tuple(limits.values())) if limits else None

    def claimed(self, asked: Iterable[str], found: Iterable[str]) -> None:
        """A claim asked for these keys, and found messages under those: the others are empty."""
        there = set(found)
        for key in asked:
            queue = key.removeprefix(key_of(KIND))
            if queue in self._levels:
                self._levels[queue].waiting = key in there

    def _hear(self, now: float) -> None:
        news, self._news = self._news, None
        if news is None:
            return
        for queue, before in news.passed.items():
            level = self._level(queue)
            level.heard, level.known = now, True
            there = max(0, news.depths.get(queue, 0)) + level.passed - before
            free = self._limit - there
            if level.full and there > LOW * self._limit:
                free = 0
            level.room, level.full = max(0, free), free <= 0

    def _level(self, queue: str) -> _Level:
        if (level := self._levels.get(queue)) is None:
            if len(self._levels) >= MAX_QUEUES:  # found again by those that wait
                del self._levels[next(iter(self._levels))]
            level = self._levels[queue] = _Level(min(AT_FIRST, self._limit))
        return level

    def _refusal(self, message: Message, queue: str) -> Refusal:
        detail = f"queue {queue[:100]!r} has {self._limit} messages (OUTBOX_MAX_DEPTH)"
        wait = Wait(key_of(KIND + queue), LOOK_AGAIN * random.uniform(1, 2))
        return Refusal(message, Reason.DEEP, detail, wait)


@lru_cache(4096)
def _queues(exchange: str, routing_key: str, declare: str) -> tuple[str, ...]:
    return tuple(queues_of(exchange, routing_key, declare))
