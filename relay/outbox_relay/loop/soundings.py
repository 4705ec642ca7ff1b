"""Asks the broker how deep queues are and how full it is, twice a second, beside the loop.

On a thread and a connection of its own. While it cannot be asked nothing is heard, and after a
while nothing is held: `core/depths.py`. A relay that publishes nothing asks nothing, and keeps no
connection for it.
"""

from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker.sounder import Sounder
from outbox_relay.core.depths import Depths, Soundings
from outbox_relay.core.memory import Used
from outbox_relay.core.questions import Questions
from outbox_relay.errors import RelayError
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.watch import Watch

log = structlog.get_logger()

#: Between two looks, in seconds; and after one that failed.
EVERY: Final = 0.5
AFTER_FAILURE: Final = 2.0
#: A connection on which nothing was asked for so long is closed, before the broker does it.
IDLE: Final = 8.0


class DepthWatch(Watch):
    """Looks every so often; a context manager that stops it."""

    def __init__(
        self, depths: Depths, open_sounder: Callable[[], Sounder], metrics: Metrics
    ) -> None:
        super().__init__("depths")
        self._depths, self._open, self._metrics = depths, open_sounder, metrics
        self._questions = Questions()
        self._failing = self._filling = self._unknown = False

    def _run(self) -> None:
        while not self._stopped.is_set():
            pause = EVERY
            try:
                if self._anything_to_ask(monotonic()):
                    with closing(self._open()) as sounder:
                        self._watch(sounder)
                    self._metrics.memory(Used())
            except RelayError as error:
                self._metrics.memory(Used())
                if not self._failing:
                    log.warning("depths_unread", reason=str(error))
                self._failing, pause = True, AFTER_FAILURE
            self._stopped.wait(pause)

    def _anything_to_ask(self, now: float) -> bool:
        asked = self._questions.next(self._depths.watched(), now)
        return bool(asked) or self._depths.asks_for_memory(now) is not None

    def _watch(self, sounder: Sounder) -> None:
        """Look as long as there is something to ask."""
        asked = monotonic()
        while not self._stopped.is_set() and monotonic() - asked < IDLE:
            if self._look(sounder):
                self._failing, asked = False, monotonic()
            self._stopped.wait(EVERY)

    def _look(self, sounder: Sounder) -> bool:
        """Ask what there is to ask, and tell of it; whether there was anything."""
        heard = self._look_at_memory(sounder)
        passed = self._depths.watched()
        if not (asked := self._questions.next(passed, monotonic())):
            return heard
        told, now = sounder.read(asked), monotonic()
        self._questions.answered(told.ready, now)
        self._questions.unanswered(told.absent | told.silent, now)
        before = {queue: passed[queue] for queue in (*told.ready, *told.absent, *told.silent)}
        self._depths.tell(Soundings(before, told.ready, told.silent), now)
        return True

    def _look_at_memory(self, sounder: Sounder) -> bool:
        """How full the broker is; whether that was asked."""
        if (passed := self._depths.asks_for_memory(monotonic())) is None:
            return False
        used = sounder.memory()
        filling = self._depths.tell_memory(used, passed, monotonic())
        self._metrics.memory(used)
        if filling and not self._filling:
            log.warning("broker_filling", reason=str(used))
        elif self._filling and not filling:
            log.info("broker_has_room", reason=str(used))
        if used.why and not self._unknown:
            log.warning("broker_memory_unknown", reason=used.why)
        self._filling, self._unknown = filling, self._unknown or bool(used.why)
        return True
