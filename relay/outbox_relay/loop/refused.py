"""What the broker would not take, until it is written down why: for another attempt, or as ended.

What somebody's open transaction has locked is kept, and tried again a second later.
"""

from collections.abc import Sequence
from typing import Final

from outbox_relay.core.decide import Core
from outbox_relay.core.message import Refusal
from outbox_relay.loop.incidents import Refusals
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.tracing.trail import Untraced
from outbox_relay.postgres.store import Store

#: How often rows are tried again that somebody's open transaction has locked, in seconds.
CATCH_UP_EVERY: Final = 1.0


class Refused:
    """Refusals that are to be written down, and those whose rows are locked."""

    def __init__(self, core: Core, metrics: Metrics, trail: Untraced) -> None:
        self._core = core
        self._metrics = metrics
        self._trail = trail
        self._log = Refusals()
        self._new: list[Refusal] = []
        self._locked: list[Refusal] = []
        self._again_at = 0.0

    @property
    def any(self) -> bool:
        """Whether something is not written down yet."""
        return bool(self._new or self._locked)

    def add(self, refused: Sequence[Refusal], now: float) -> None:
        """These have been refused just now, in monotonic seconds."""
        if refused:
            self._core.refused(refused, now)
            self._new += refused

    def write(self, store: Store, now: float, *, again: bool) -> bool:
        """Write down what is new, and what was locked if it is time; whether a message ended."""
        if self._locked and (again or now >= self._again_at):
            self._new, self._locked = self._new + self._locked, []
        ended = self._written(store, now) if self._new else False
        self._new = []  # not before: a database that was lost is told again
        return ended

    def _written(self, store: Store, now: float) -> bool:
        refused = self._core.still_held(self._new)
        if not refused:
            return False
        parkings = self._core.parkings(refused)
        self._trail.parked(refused, parkings, now)
        ended = [parking.message for parking in parkings if parking.state == "expired"]
        others = [parking for parking in parkings if parking.state != "expired"]
        locked = (store.park(others) if others else set()) | (
            store.expire(ended) if ended else set()
        )
        self._metrics.expired.inc(len(ended))
        self._core.parked(p for p in parkings if p.message.id not in locked)
        if locked:
            self._locked += [each for each in refused if each.message.id in locked]
            self._again_at = now + CATCH_UP_EVERY
        self._log.add([each for each in refused if not (each.message.expired or each.wait)], others)
        return any(parking.state in ("dead", "expired") for parking in parkings)

    def forget(self) -> None:
        """Forget those whose rows are locked: their claims were given back."""
        self._locked = []

    def log(self, *, all_of_them: bool = False) -> None:
        """Log recent refusals, summed up; or all."""
        self._log.log(all_of_them=all_of_them)
