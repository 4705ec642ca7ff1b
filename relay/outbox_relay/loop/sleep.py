"""When a relay with nothing to do sleeps, and what wakes it: the doorbell, a time, or a look.

A relay lies down soon after its last message, if the doorbell is its to hear and no transaction is
open that has made work. It looks every two seconds nevertheless, and gets up when something that
waits for a time is due. Where another relay is rung, or nobody can be, it polls: less often where
another is rung.
"""

from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.backoff import (
    LIE_DOWN_AFTER,
    LOOK_EVERY,
    QUIET,
    QUIET_AFTER,
    REST_POLL,
    poll_interval,
)
from outbox_relay.core.claim import Turn
from outbox_relay.core.decide import Core
from outbox_relay.postgres.store import Store

log = structlog.get_logger()

#: How long a signal may wait for a sleeper, in seconds; and while nothing moves.
NAP: Final = 0.2
NAP_QUIET: Final = 0.5
#: In how many steps from getting up producers still ring: what rang is claimed, fetched and
#: published first.
STEPS_RUNG: Final = 3
#: How often a relay that is not rung tries whether it can be, in seconds.
TRY_EVERY: Final = 1.0
TRY_EVERY_QUIET: Final = 10.0  # while nothing moves


class Sleep:
    """Whether this relay sleeps. `now` is in monotonic seconds; `idle` since its last message."""

    def __init__(self) -> None:
        self.asleep = False
        self._resting = False
        self._next_try = 0.0
        self._due = float("inf")
        self._called = False
        self._steps_rung = 0
        self._nap = NAP
        self._alarmed = float("-inf")
        #: Whether the bell woke it the last time, not the alarm.
        self.rung = False

    def lie_down(self, store: Store, now: float, idle: float) -> bool:
        """Whether it sleeps from now on: look once more before you believe it."""
        if self.asleep or idle < LIE_DOWN_AFTER:
            return self.asleep
        if idle > (since := now - self._alarmed) and since < TRY_EVERY:
            return False  # the alarm brought nothing: what is due is locked, say, and still is
        if not store.bell.watching and now >= self._next_try:
            self._next_try = now + (TRY_EVERY if idle < QUIET_AFTER else TRY_EVERY_QUIET)
            if reason := store.bell.watch():
                log.info("doorbell_off", reason=reason)
        self.asleep, self._steps_rung = store.bell.lie_down(), 0
        return self.asleep

    @property
    def at_ease(self) -> bool:
        """Whether it has nothing to do but to look: it sleeps, or another relay is rung."""
        return self.asleep or self._resting

    def finds_work(self, store: Store, turn: Turn) -> bool:
        """Look whether the turn could claim anything."""
        if not self.asleep:
            return store.has_work(turn)
        work, due = store.look(turn)
        self._due = float("inf") if due is None else monotonic() + due
        return work

    def pause(self, turn: Turn, store: Store, now: float, idle: float) -> float:
        """Seconds until the next look; the last one, for this turn, found nothing."""
        self._nap = NAP if idle < QUIET_AFTER else NAP_QUIET
        if self.asleep:
            # A look that began above the head is soon followed by one from there.
            return max(0.0, min(REST_POLL if turn.floor else LOOK_EVERY, self._due - now))
        self._resting = store.bell.another_watches and idle > QUIET
        if self._resting:
            return REST_POLL if idle < QUIET_AFTER else LOOK_EVERY
        return poll_interval(idle)

    def nap(self, store: Store, core: Core, until: float) -> bool:
        """Sleep until then, or a little; True if something called, and it is up again."""
        seconds = min(self._nap, until - (now := monotonic()), core.waiting.pause(now))
        self.rung = store.bell.wait(seconds) and monotonic() < self._due
        if not self.rung and monotonic() < self._due:
            return False
        if not self.rung:
            self._alarmed = monotonic()
        self.get_up()
        core.look_in_lanes()
        self._called = True
        return True

    def was_called(self) -> bool:
        """Whether something called, and nothing has been claimed since; says so once."""
        called, self._called = self._called, False
        return called

    def get_up(self) -> bool:
        """Work as usual; whether it did not."""
        eased, self._resting = self.at_ease, False
        if self.asleep:
            self.asleep, self._steps_rung = False, STEPS_RUNG
        return eased

    def take_bell_down(self, store: Store) -> None:
        """Have nobody ring any more, a few steps after it got up; call it in each step."""
        if self._steps_rung:
            self._steps_rung -= 1
            if not self._steps_rung:
                store.bell.get_up()
