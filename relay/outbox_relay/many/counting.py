"""Counts what each of many outboxes holds, for the metrics: one database after another.

A connection is opened for a turn and closed after it. No outbox waits for a count: neither one that
rests, on the connection of the watch, nor one with a seat. Two databases have a turn at a time, so
that one that hangs does not stop all.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import closing
from math import inf
from threading import Lock
from time import monotonic
from typing import Final

import structlog
from structlog.contextvars import bound_contextvars

from outbox_relay.errors import RelayError
from outbox_relay.loop.incidents import ChoreFailures
from outbox_relay.many import alike
from outbox_relay.many.desk import Desk
from outbox_relay.observe.watch import Watch
from outbox_relay.postgres.counting import Counter

log = structlog.get_logger()

#: How many databases have a turn at a time. A turn takes a connection.
AT_ONCE: Final = 2
#: How often an outbox is counted, in seconds: one that has a seat, or had one since; others.
EVERY: Final = 5.0
EVERY_IDLE: Final = 120.0
#: The share of the time that counts of an outbox may take; so seldom they come at most.
SHARE: Final = 0.1
MAX_PAUSE: Final = 300.0
#: How long to wait where nobody is to be counted, and between two databases.
PAUSE: Final = 2.0
BETWEEN: Final = 0.2


class Turns:
    """Whom to count next. What was counted is remembered by name; times in monotonic seconds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._began: dict[Hashable, float] = {}
        self._at_work: set[Hashable] = set()
        self._counted: dict[str, float] = {}
        self._took: dict[str, float] = {}

    def take(self, desks: Sequence[Desk], now: float) -> list[Desk]:
        """Those of one database whose time has come, and who are no one else's before `done`.

        Whose time comes soon goes along, so that there are fewer turns.
        """
        shared: dict[Hashable, list[Desk]] = {}
        for desk in desks:
            shared.setdefault(alike.for_questions(desk.outbox.settings), []).append(desk)
        with self._lock:
            names = {desk.outbox.name for desk in desks}
            self._counted = {n: at for n, at in self._counted.items() if n in names}
            self._began = {key: at for key, at in self._began.items() if key in shared}
            for key, group in shared.items():
                if key in self._at_work or now - self._began.get(key, -inf) < EVERY:
                    continue
                if any(self._is_due(desk, now) for desk in group):
                    self._at_work.add(key)
                    self._began[key] = now
                    return [desk for desk in group if self._is_due(desk, now, part=0.5)]
        return []

    def counted(self, desk: Desk, began: float, took: float) -> None:
        """It was, from then on and for so long."""
        with self._lock:
            self._counted[desk.outbox.name], self._took[desk.outbox.name] = began, took

    def done(self, desks: Sequence[Desk]) -> None:
        """The turn is over."""
        with self._lock:
            self._at_work.discard(alike.for_questions(desks[0].outbox.settings))

    def _is_due(self, desk: Desk, now: float, part: float = 1.0) -> bool:
        name = desk.outbox.name
        every = EVERY if desk.seated or desk.moved else EVERY_IDLE
        pause = min(MAX_PAUSE, max(every, self._took.get(name, 0.0) / SHARE))
        return now - self._counted.get(name, -inf) >= part * pause


class Counting(Watch):
    """Has turns, one after another; `turns` are common to all that do."""

    def __init__(self, desks: Callable[[], Sequence[Desk]], turns: Turns) -> None:
        super().__init__("counts")
        self._desks, self._turns = desks, turns
        self._failures: dict[str, ChoreFailures] = {}

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            there = [desk for desk in self._desks() if desk.health.database_up]
            pause = PAUSE
            if due := self._turns.take(there, monotonic()):
                pause = BETWEEN
                try:
                    self._count(due)
                finally:
                    self._turns.done(due)

    def _count(self, desks: Sequence[Desk]) -> None:
        """Count these of one database, as long as it is there."""
        try:
            with closing(Counter.open(desks[0].outbox.settings)) as counter:
                for desk in desks:
                    if self._stopped.is_set():
                        return
                    self._count_one(desk, counter.of(desk.outbox.settings.schema))
        except RelayError as error:  # that a database is away is told by its watch
            log.debug("counts_unread", database=desks[0].outbox.database, reason=str(error))

    def _count_one(self, desk: Desk, counter: Counter) -> None:
        """All there is of one that works; of one that rests, how many messages."""
        began, whole = monotonic(), desk.seated or desk.moved
        desk.moved = False
        try:
            counts = counter.counts(whole=whole)
        finally:
            self._turns.counted(desk, began, monotonic() - began)
        desk.metrics.counts(counts)
        if counts.failures:
            name = desk.outbox.name
            noted = self._failures.setdefault(name, ChoreFailures())
            with bound_contextvars(outbox=name):
                for part, reason in counts.failures:
                    noted.note(part, reason, monotonic())


def counting(desks: Callable[[], Sequence[Desk]]) -> list[Counting]:
    """Those that share all turns."""
    turns = Turns()
    return [Counting(desks, turns) for _ in range(AT_ONCE)]
