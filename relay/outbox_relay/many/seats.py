"""Who gets a seat, who waits for one, and who gives one up. Pure; times are in monotonic seconds.

A seat is what publishes for an outbox: a thread with a connection to its database and one to its
broker. There are not enough for all. Those that wait get one in the order in which they came; who
has had one for a while gives it up to them and queues again. Of outboxes whose broker is away one
at a time has a seat, to see whether it is back; and no database has more than its share.
"""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

#: How long whoever still publishes keeps its seat while others wait, in seconds.
SLICE: Final = 2.0
#: How long one with nothing to do keeps it: a burst goes on fast. And while few are free.
LINGER: Final = 0.5
LINGER_SCARCE: Final = 0.3
#: As many seats are kept free for those who come: a fraction.
SPARE: Final = 0.25
#: A broker or a database that a seat cannot reach for so long is away.
PATIENCE: Final = 3.0
#: Pauses between two attempts to reach a broker that is away, in seconds.
AWAY: Final = 1.0
MAX_AWAY: Final = 15.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An outbox by name, and what it shares with others."""

    name: str
    database: Hashable
    broker: Hashable


@dataclass(frozen=True, slots=True)
class Report:
    """How it goes in a seat: for how long it has had nothing to do, or not reached its servers."""

    idle: float = 0.0
    without_database: float = 0.0
    without_broker: float = 0.0
    at_work: bool = True  # the broker is connected


@dataclass(slots=True)
class _Taken:
    candidate: Candidate
    since: float
    leaving: bool = False


@dataclass(slots=True)
class _Away:
    pause: float
    until: float


@dataclass(slots=True)
class Seats:
    """So many seats, and who has them."""

    most: int  # of all outboxes
    share: int  # and of those of one database
    _queue: dict[str, Candidate] = field(default_factory=dict)
    _taken: dict[str, _Taken] = field(default_factory=dict)
    _brokers: dict[Hashable, _Away] = field(default_factory=dict)
    _failed: dict[str, float] = field(default_factory=dict)  # and when they may have another

    @property
    def taken(self) -> int:
        """How many have one."""
        return len(self._taken)

    def wants(self, candidate: Candidate) -> None:
        """It has something to do."""
        if candidate.name not in self._taken:
            self._queue.setdefault(candidate.name, candidate)

    def gone(self, name: str) -> None:
        """It waits for no seat any more."""
        self._queue.pop(name, None)
        self._failed.pop(name, None)

    def next(self, now: float) -> list[str]:
        """Those that get a seat now, in the order in which they came."""
        chosen = []
        for name, candidate in list(self._queue.items()):
            if len(self._taken) >= self.most:
                break
            if self._may_sit(candidate, now):
                del self._queue[name]
                self._taken[name] = _Taken(candidate, now)
                self._failed.pop(name, None)
                chosen.append(name)
        return chosen

    def to_leave(self, reports: Mapping[str, Report], now: float) -> list[str]:
        """Those that are to give up their seat now; each is named once."""
        staying = {name: taken for name, taken in self._taken.items() if not taken.leaving}
        scarce = self.most - len(self._taken) < self.most * SPARE
        linger = LINGER_SCARCE if scarce else LINGER
        leaving = {
            name
            for name, taken in staying.items()
            if self._is_away(taken, reports[name], now) or reports[name].idle >= linger
        }
        idle = sorted((n for n in staying if reports[n].idle), key=lambda n: -reports[n].idle)
        had = sorted(
            (n for n, taken in staying.items() if now - taken.since >= SLICE),
            key=lambda name: staying[name].since,
        )
        leaving |= self._make_room(leaving, [*dict.fromkeys((*idle, *had))], now)
        for name in leaving:
            self._taken[name].leaving = True
        return sorted(leaving)

    def _make_room(self, leaving: set[str], others: list[str], now: float) -> set[str]:
        """Of these others, in this order, who has to leave so that all who wait can have a seat."""
        going = leaving | {name for name, taken in self._taken.items() if taken.leaving}
        free = self.most - len(self._taken) + len(going)
        stay = Counter(t.candidate.database for n, t in self._taken.items() if n not in going)
        made: set[str] = set()
        for candidate in self._queue.values():
            if not self._may_come(candidate, now):
                continue
            database = candidate.database
            if free <= 0 or stay[database] >= self.share:
                wanted = database if stay[database] >= self.share else None
                leaver = self._first(others, going, wanted)
                if leaver is None:
                    continue
                going.add(leaver)
                made.add(leaver)
                stay[self._taken[leaver].candidate.database] -= 1
                free += 1
            free -= 1
            stay[database] += 1
        return made

    def _first(self, names: list[str], but: set[str], database: Hashable) -> str | None:
        """The first of these, of that database if one is given."""
        for name in names:
            if name not in but and database in (None, self._taken[name].candidate.database):
                return name
        return None

    def left(self, name: str, again_at: float = 0.0) -> None:
        """Its seat is free; it gets no other before `again_at`, if it has failed."""
        self._taken.pop(name, None)
        if again_at:
            self._failed[name] = again_at

    def pause(self, now: float) -> float:
        """Seconds until somebody who waits may get a seat, or give one up; at most a second."""
        if not self._queue:
            return 1.0
        return max(0.02, min([0.1, *(away.until - now for away in self._brokers.values())]))

    def _may_sit(self, candidate: Candidate, now: float) -> bool:
        """Whether nothing but a free seat keeps it from having one."""
        databases = [taken.candidate.database for taken in self._taken.values()]
        return databases.count(candidate.database) < self.share and self._may_come(candidate, now)

    def _may_come(self, candidate: Candidate, now: float) -> bool:
        """Whether it could work: its broker is there, or it is the one to see if it is back."""
        if now < self._failed.get(candidate.name, 0.0):
            return False
        if (away := self._brokers.get(candidate.broker)) is None:
            return True
        others = [taken.candidate.broker for taken in self._taken.values()]
        return now >= away.until and candidate.broker not in others

    def _is_away(self, taken: _Taken, report: Report, now: float) -> bool:
        """Whether its servers cannot be reached; notes it of the broker."""
        broker = taken.candidate.broker
        if report.without_broker >= PATIENCE:
            before = self._brokers.get(broker)
            pause = AWAY
            if before is not None:  # of many that give up at once, one counts
                pause = before.pause if now < before.until else min(MAX_AWAY, 2 * before.pause)
            self._brokers[broker] = _Away(pause, now + pause)
            return True
        if report.at_work:
            self._brokers.pop(broker, None)
        return report.without_database >= PATIENCE
