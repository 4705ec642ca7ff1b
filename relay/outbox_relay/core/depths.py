"""How many more messages each queue may get, so that none holds more than a limit. Pure.

Somebody else asks the broker how many messages of each queue are ready, and says so; here it is
reckoned how many more may be published until the next answer. Once a queue is full, its messages
are set aside in the database, until a fifth of the limit is free again; then as many as there is
room for are claimed from there.

Where the broker's memory is bounded, the limit is lower while that is nearly full (`memory.py`);
with no other limit, no queue is looked at as long as it is not.

A queue that the broker does not show counts as empty. One that it does not tell of is held no
longer than a while, and so are all where it tells nothing: a broker that does not tell starves
nobody. What is counted is what was let through, so that a queue holds no more than the limit and
what was in flight when the broker was asked, however many queues there are and however seldom each
is asked about.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from outbox_relay.core.holds import DEPTH, LOOK_AGAIN, key_of
from outbox_relay.core.memory import Memory, Used
from outbox_relay.core.message import Message, Reason, Refusal, Wait
from outbox_relay.core.route import queues_of
from outbox_relay.core.share import ALL

#: A queue that was full takes messages again once so much of the limit is left in it.
LOW: Final = 0.8
#: How many may pass before anything is known of a queue, or once what is known is old, in seconds.
AT_FIRST: Final = 100
OLD: Final = 5.0
#: Who waits so long for an answer, in seconds, waits for it no longer.
STALE: Final = 15.0
#: The most queues remembered; of so many, one that need not be is looked for when room is made.
MAX_QUEUES: Final = 10_000
MAX_TRIED: Final = 100


@dataclass(frozen=True, slots=True)
class Soundings:
    """What the broker told, and what had passed when it was asked.

    A queue that has no depth is not shown, unless it is among those of which no answer came.
    """

    passed: Mapping[str, int] = field(default_factory=dict)
    depths: Mapping[str, int] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Level:
    """What is known of one queue."""

    room: int
    passed: int
    told: int = -1  # what had passed by the last answer
    heard: float = float("-inf")
    wanting: float | None = None  # since when it lacks room, and no answer has come
    silent: bool = False
    full: bool = False

    def take(self) -> None:
        """One has passed."""
        self.passed += 1
        self.room = max(0, self.room - 1)
        self.full = self.full or (self.told >= 0 and not self.room)


class Depths:
    """The queues that messages go to. `tell` and `watched` may be called from another thread."""

    def __init__(self, limit: int | None, memory: Memory | None = None) -> None:
        """At most `limit` in each queue, and no more than the `memory` of the broker bears."""
        self._limit = ALL if limit is None else limit
        self._memory = memory
        self._levels: dict[str, _Level] = {}
        self._waiting: dict[str, None] = {}  # for these there may be messages in the database
        self._lock = Lock()
        self._heard = float("-inf")
        self._passed = 0  # counted by queue: one that is new begins here, above what it had before
        self._forgetful = False  # a queue that seems new may be full

    @property
    def waiting(self) -> bool:
        """Whether messages may wait for room."""
        return bool(self._waiting)

    def watched(self) -> dict[str, int]:
        """The queues of which an answer would say something new, with what has passed.

        First those for which messages wait.
        """
        with self._lock:
            if self._limit == ALL and not (self._memory and self._memory.short):
                return {}
            waiting = {queue: self._levels[queue].passed for queue in self._waiting}
            levels = self._levels.items()
            return waiting | {queue: e.passed for queue, e in levels if e.passed != e.told}

    def tell(self, soundings: Soundings, now: float) -> None:
        """The broker has answered."""
        with self._lock:
            self._heard = now
            for queue, before in soundings.passed.items():
                if (level := self._levels.get(queue)) is None:
                    continue
                level.silent = queue in soundings.silent
                if not level.silent:
                    depth = max(0, soundings.depths.get(queue, 0))
                    self._answered(level, before, depth, now)

    def asks_for_memory(self, now: float) -> int | None:
        """What has passed by now, where it is time to ask how much memory is used; else None."""
        with self._lock:
            if self._memory is None:
                return None
            return self._memory.question(now, waiting=bool(self._waiting))

    def tell_memory(self, used: Used, passed: int, now: float) -> bool:
        """The broker has answered that; whether its memory is nearly full."""
        with self._lock:
            if self._memory is not None:
                self._memory.tell(used, passed, now)
            return self._memory is not None and self._memory.full(now)

    def free(self, messages: list[Message], now: float) -> bool:
        """Whether there is room for all of these without a look at their queues; it is taken."""
        if self._limit < ALL or self._memory is None:
            return False
        with self._lock:
            return self._memory.take_all(messages, now)

    def sort(
        self,
        messages: list[Message],
        now: float,
        others: Callable[[Message], Refusal | None] = lambda _: None,
    ) -> tuple[list[Message], list[Refusal]]:
        """Those for which there is room, and the others, which wait.

        `others` may hold what there is room for, which then takes none.
        """
        allowed: list[Message] = []
        held: list[Refusal] = []
        with self._lock:
            for message in messages:
                if (refusal := self._pass(message, now, others)) is None:
                    allowed.append(message)
                else:
                    held.append(refusal)
        return allowed, held

    def _pass(
        self, message: Message, now: float, others: Callable[[Message], Refusal | None]
    ) -> Refusal | None:
        queues = queues_of(message.exchange, message.routing_key, message.declare)
        levels = [(queue, self._level(queue)) for queue in queues]
        for queue, level in levels:
            if not self._room(level, now) or not self._bears(message, level, now):
                self._levels[queue] = level  # which may have been forgotten for the one after it
                self._waiting[queue] = None
                return self._refusal(message, queue, now)
        if (refusal := others(message)) is not None:
            return refusal
        for _, level in levels:
            level.take()
        self._passed += len(levels)
        if self._memory is not None:
            self._memory.took(message)
        return None

    def found(self, targets: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        with self._lock:
            for target in targets:
                self._level(queue := target.removeprefix(DEPTH))
                self._waiting[queue] = None

    def wishes(self, now: float) -> dict[str, int]:
        """How many to take of the messages that wait, by key: as many as their queue has room."""
        with self._lock:
            waiting = [(queue, self._levels[queue]) for queue in self._waiting]
            rooms = {key_of(DEPTH + queue): self._room(level, now) for queue, level in waiting}
            return {key: room for key, room in rooms.items() if room}

    def claimed(self, asked: Iterable[str], found: Iterable[str]) -> None:
        """A claim asked for these keys, and found messages under those: the others are empty."""
        there = set(found)
        with self._lock:
            for key in asked:
                if key not in there:
                    self._waiting.pop(key.removeprefix(key_of(DEPTH)), None)

    def _needed(self, queue: str, level: _Level) -> bool:
        """Whether an answer would say something new, or is waited for."""
        return level.passed != level.told or queue in self._waiting

    def _most(self, now: float) -> int:
        """How many messages a queue may have."""
        return self._limit if self._memory is None else min(self._limit, self._memory.ready(now))

    def _room(self, level: _Level, now: float) -> int:
        """How many more messages may pass."""
        if (most := self._most(now)) == ALL:
            return ALL
        if self._memory is not None and self._memory.shut(now):
            return 0
        level.room = min(level.room, most, most if now - level.heard <= OLD else AT_FIRST)
        if level.room > 0:
            return level.room
        level.wanting = now if level.wanting is None else level.wanting
        unheard = level.silent or now - self._heard > STALE
        return ALL if unheard and now - level.wanting > STALE else 0

    def _bears(self, message: Message, level: _Level, now: float) -> bool:
        """Whether there is memory for it; where there is not, its queue waits for an answer."""
        if self._memory is None or self._memory.takes(message, now):
            return True
        level.room = 0
        return False

    def _answered(self, level: _Level, before: int, depth: int, now: float) -> None:
        level.heard, level.told, level.wanting = now, before, None
        most = self._most(now)
        free = most - (depth + level.passed - before)
        if level.full and most - free > LOW * most:
            free = 0
        level.room, level.full = max(0, free), free <= 0

    def _level(self, queue: str) -> _Level:
        if (level := self._levels.get(queue)) is None:
            if len(self._levels) >= MAX_QUEUES:
                self._forget_one()
            first = 0 if self._forgetful else min(AT_FIRST, self._limit)
            level = _Level(first, self._passed)
            self._levels[queue] = level
        return level

    def _forget_one(self) -> None:
        """Preferably one of which there is no need to know; those that wait are found again."""
        self._forgetful = True
        for queue in [queue for queue, _ in zip(self._levels, range(MAX_TRIED), strict=False)]:
            level = self._levels.pop(queue)
            if not self._needed(queue, level):
                return
            self._levels[queue] = level  # behind the others
        queue = next(iter(self._levels))
        del self._levels[queue]
        self._waiting.pop(queue, None)

    def _refusal(self, message: Message, queue: str, now: float) -> Refusal:
        detail = f"queue {queue[:100]!r} has {self._limit} messages (OUTBOX_MAX_DEPTH)"
        if self._memory is not None and self._memory.full(now):
            detail = f"queue {queue[:100]!r} is kept short: {self._memory.used}"
        wait = Wait(key_of(DEPTH + queue), LOOK_AGAIN * random.uniform(1, 2))
        return Refusal(message, Reason.DEEP, detail, wait)
