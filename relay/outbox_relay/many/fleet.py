"""Serves many outboxes: watches those that rest, gives seats to those that work, follows the list.

Whatever becomes of one database, broker or outbox, the others go on: each watch and each seat is a
thread of its own, and this one waits for none of them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

import structlog
from structlog.contextvars import bound_contextvars

from outbox_relay.broker.registry import publisher_factory
from outbox_relay.errors import RelayError
from outbox_relay.loop.incidents import Outage
from outbox_relay.many import alike, chores, counting
from outbox_relay.many.chores import effects_of, homecoming_of
from outbox_relay.many.desk import Desk
from outbox_relay.many.discovery import MAX_AT_ONCE
from outbox_relay.many.observe import Boards
from outbox_relay.many.outbox import Outbox
from outbox_relay.many.seat import Ended, Seat, seat_settings
from outbox_relay.many.seats import PATIENCE, Candidate, Seats
from outbox_relay.many.spares import Spares
from outbox_relay.many.watch import Watch
from outbox_relay.settings import Settings

log = structlog.get_logger()

#: Connections that are no seat and no watch: for chores, two a turn at most, for counts, and for
#: whoever looks for new schemas.
BESIDE: Final = 2 * chores.AT_ONCE + counting.AT_ONCE + MAX_AT_ONCE
#: With many databases there are more watches; there are at least so many seats.
MIN_SEATS: Final = 4
#: The most of all seats that one database has, where there are several.
SHARE: Final = 0.5
#: An outbox whose seat has failed gets no other one for so many seconds.
AFTER_FAILURE: Final = 5.0
#: A seat that fails for the same reason is logged again after so many seconds.
REMIND_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Called:
    outbox: Outbox


@dataclass(frozen=True, slots=True)
class _Listed:
    outboxes: tuple[Outbox, ...]


@dataclass(frozen=True, slots=True)
class _Stopped:
    pass


class _Broker:
    """What is known of a broker that outboxes share."""

    def __init__(self) -> None:
        self.outage = Outage("broker", monotonic)
        self.up = True  # until an attempt has failed


class Fleet:
    """All of them. `run` serves until `stop`; `serve` says which there are, on any thread.

    At the end, seats have `landing` seconds to be left.
    """

    def __init__(self, settings: Settings, boards: Boards, landing: float) -> None:
        self._connections, self._landing = settings.max_connections, landing
        self._boards = boards
        self._events = SimpleQueue[_Called | _Listed | _Stopped | Ended]()
        self._seats = Seats(MIN_SEATS, MIN_SEATS)
        self._spares = Spares()
        self._outboxes: dict[str, Outbox] = {}
        self._desks: dict[str, Desk] = {}
        self._watches: dict[Hashable, Watch] = {}
        self._brokers: dict[Hashable, _Broker] = {}
        self._seated: dict[str, Seat] = {}
        self._failures: dict[str, tuple[str, float]] = {}

    def serve(self, outboxes: Sequence[Outbox]) -> None:
        """Serve these from now on, and no others."""
        self._events.put(_Listed(tuple(outboxes)))

    def desks(self) -> tuple[Desk, ...]:
        """Those of all outboxes, on any thread."""
        return tuple(self._desks.copy().values())

    def stop(self) -> None:
        """Give no more seats; `run` returns when all are empty, or the time for that is over."""
        self._events.put(_Stopped())

    def run(self) -> None:
        """Serve until `stop` is called."""
        while not isinstance(event := self._next(self._seats.pause(monotonic())), _Stopped):
            self._handle(event)
            self._decide()
        for watch in self._watches.values():
            watch.stop()
        for seat in self._seated.values():
            seat.leave()
        deadline = monotonic() + self._landing
        while self._seated and (left := deadline - monotonic()) > 0:
            if isinstance(event := self._next(left), Ended):
                self._seated.pop(event.name, None)
                event.left.close()
        self._spares.close()

    def _next(self, seconds: float) -> _Called | _Listed | _Stopped | Ended | None:
        try:
            return self._events.get(timeout=seconds)
        except Empty:
            return None

    def _handle(self, event: _Called | _Listed | Ended | None) -> None:
        match event:
            case _Called(outbox):
                if self._outboxes.get(outbox.name) == outbox:
                    self._seats.wants(_candidate(outbox))
            case Ended():
                self._vacated(event)
            case _Listed(outboxes):
                self._follow({outbox.name: outbox for outbox in outboxes})

    def _decide(self) -> None:
        """Let those leave that have to, and seat those that may come."""
        now = monotonic()
        reports = {name: seat.report(now) for name, seat in self._seated.items()}
        for name, report in reports.items():
            desk = self._desks[name]
            desk.active |= not report.idle
            if report.at_work or report.without_broker >= PATIENCE:
                self._brokers[alike.for_broker(desk.outbox.settings)].up = report.at_work
        brokers = self._brokers.values()
        self._boards.health.broker_up = not brokers or any(broker.up for broker in brokers)
        self._boards.health.progress()
        for name in self._seats.to_leave(reports, now):
            self._seated[name].leave()
        for name in self._seats.next(now):
            self._sit(name)
        self._spares.tend(self._seats.most - self._seats.taken)

    def _sit(self, name: str) -> None:
        desk = self._desks[name]
        desk.active = True
        settings = seat_settings(desk.outbox.settings, self._landing)
        try:
            with bound_contextvars(outbox=name):
                seat = Seat(desk, settings, self._events.put)
        except RelayError as error:  # the file of a secret is being replaced, say
            self._vacated(Ended(name, moved=False, reason=str(error)))
            return
        self._seated[name] = seat
        desk.seated = desk.moved = True
        seat.start(self._spares.take(settings))

    def _vacated(self, ended: Ended) -> None:
        """A seat is empty: its outbox rests, unless it was listed anew or taken off meanwhile."""
        self._seated.pop(ended.name, None)
        self._seats.left(ended.name, again_at=monotonic() + AFTER_FAILURE if ended.reason else 0.0)
        if ended.reason:
            self._note_failure(ended.name, ended.reason)
        self._desks[ended.name].seated = False
        served, outbox = self._desks[ended.name].outbox, self._outboxes.get(ended.name)
        self._spares.put(seat_settings(served.settings, self._landing), ended.left)
        watch = self._watch_of(served)
        if outbox == served and watch is not None:
            watch.look_after(outbox, moved=ended.moved)
            return
        self._forget(served)
        if outbox is not None:
            self._take_in(outbox)

    def _note_failure(self, name: str, reason: str) -> None:
        before, when = self._failures.get(name, ("", 0.0))
        if reason != before or monotonic() - when >= REMIND_EVERY:
            self._failures[name] = reason, monotonic()
            log.error("outbox_failed", outbox=name, reason=reason)

    def _follow(self, listed: dict[str, Outbox]) -> None:
        """Take in those that are new, and leave those that are gone."""
        before, self._outboxes = self._outboxes, listed
        new = [o for name, o in listed.items() if before.get(name) != o]
        old = [o for name, o in before.items() if listed.get(name) != o]
        for outbox in old:
            self._seats.gone(outbox.name)
            if outbox.name in self._seated:  # it is forgotten when the seat is empty
                self._seated[outbox.name].leave()
            else:
                self._forget(outbox)
        for outbox in new:
            if outbox.name not in self._seated:
                self._take_in(outbox)
        used = {alike.for_watch(outbox.settings) for outbox in listed.values()}
        for database in [each for each in self._watches if each not in used]:
            self._watches.pop(database).stop()
        served = {alike.for_broker(desk.outbox.settings) for desk in self._desks.values()}
        self._brokers = {each: broker for each, broker in self._brokers.items() if each in served}
        seats = max(MIN_SEATS, self._connections - BESIDE - len(self._watches))
        share = seats if len(self._watches) < 2 else max(1, int(SHARE * seats))
        self._seats.most, self._seats.share = seats, share
        if new or old:
            log.info("outboxes_listed", outboxes=len(listed), new=len(new), gone=len(old))

    def _take_in(self, outbox: Outbox) -> None:
        """Prepare what its seats will share, and have it watched."""
        settings = outbox.settings
        if (watch := self._watch_of(outbox)) is None:
            # What it logs is about no outbox in particular: it says whose database it is.
            with bound_contextvars(database=outbox.database):
                watch = self._watches[alike.for_watch(settings)] = Watch(settings, self)
            watch.start()
        if (broker := self._broker_of(outbox)) is None:
            broker = self._brokers[alike.for_broker(settings)] = _Broker()
            self._seats.wants(_candidate(outbox))  # whether it is there is seen from a seat
        metrics, health = self._boards.board(outbox.name)
        self._desks[outbox.name] = Desk(
            outbox,
            metrics,
            health,
            watch.outage,
            broker.outage,
            publisher_factory(settings),
            homecoming_of(settings, metrics),
            effects_of(settings),
        )
        watch.look_after(outbox)

    def _forget(self, outbox: Outbox) -> None:
        del self._desks[outbox.name]
        self._failures.pop(outbox.name, None)
        self._boards.forget(outbox.name)
        if (watch := self._watch_of(outbox)) is not None:
            watch.leave(outbox)

    def _watch_of(self, outbox: Outbox) -> Watch | None:
        return self._watches.get(alike.for_watch(outbox.settings))

    def _broker_of(self, outbox: Outbox) -> _Broker | None:
        return self._brokers.get(alike.for_broker(outbox.settings))

    # What the watches tell, on threads of theirs.

    def called(self, outbox: Outbox) -> None:
        """It has something to do."""
        self._events.put(_Called(outbox))

    def watched(self, outbox: Outbox, *, up: bool) -> None:
        """Whether its database is there."""
        desk, broker = self._desks.get(outbox.name), self._broker_of(outbox)
        if desk is None or broker is None:
            return
        desk.health.progress()
        desk.health.database_up, desk.health.broker_up = up, broker.up
        if up:
            desk.metrics.database_found()
            desk.metrics.broker_up.set(broker.up)
        else:
            desk.metrics.database_lost()


def _candidate(outbox: Outbox) -> Candidate:
    settings = outbox.settings
    return Candidate(outbox.name, alike.for_watch(settings), alike.for_broker(settings))
