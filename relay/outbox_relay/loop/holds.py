"""Keeps it known what people have paused or limited: read every second, before any claim.

A relay that sleeps looks only when a pause ends: it reads once it has lain down, and is rung by
whoever pauses or resumes; it reads again as soon as it is up.
"""

from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.holds import Hold
from outbox_relay.core.waiting import Waiting
from outbox_relay.postgres.store import Store

log = structlog.get_logger()

#: Between two looks, in seconds.
EVERY: Final = 1.0


class HoldReader:
    """Remembers when it looked last; `now` is in monotonic seconds."""

    def __init__(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._next = 0.0
        self._asleep = False
        self._paused: list[str] = []

    def look(self, store: Store, now: float, *, asleep: bool) -> None:
        """Look if it is time. Raises as the store does: nothing is published unread."""
        if wanted := self._waiting.wanted(now):
            grants = store.holding.take_tokens(wanted)
            self._waiting.granted(grants, monotonic())  # none may be used early
        if asleep == self._asleep and now < self._next:
            return
        holds = store.holding.read()
        ends = min((hold.seconds for hold in holds if hold.seconds is not None), default=inf)
        self._asleep, self._next = asleep, now + (max(EVERY, ends) if asleep else EVERY)
        self._waiting.hold(holds)
        self._tell(holds)

    def _tell(self, holds: Sequence[Hold]) -> None:
        paused = sorted(hold.target for hold in holds if hold.per_second is None)
        if paused != self._paused:
            log.info("pauses_changed", paused=paused[:20], pauses=len(paused))
            self._paused = paused
