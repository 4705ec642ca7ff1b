"""Asks the broker how deep queues are, twice a second, on a thread and a connection of its own.

While it cannot be asked nothing is heard, and after a while nothing is held: `core/depths.py`. A
relay that publishes nothing asks nothing, and keeps no connection for it.
"""

from collections.abc import Callable
from contextlib import closing
from time import monotonic
from typing import Final

import structlog

from outbox_relay.broker.sounder import Sounder
from outbox_relay.core.depths import Depths, Soundings
from outbox_relay.core.questions import Questions
from outbox_relay.errors import RelayError
from outbox_relay.observe.watch import Watch

log = structlog.get_logger()

#: Between two looks, in seconds; and after one that failed.
EVERY: Final = 0.5
AFTER_FAILURE: Final = 2.0
#: A connection on which nothing was asked for so long is closed, before the broker does it.
IDLE: Final = 8.0


class DepthWatch(Watch):
    """Looks every so often; a context manager that stops it."""

    def __init__(self, depths: Depths, open_sounder: Callable[[], Sounder]) -> None:
        super().__init__("depths")
        self._depths, self._open = depths, open_sounder
        self._questions = Questions()
        self._failing = False

    def _run(self) -> None:
        while not self._stopped.is_set():
            pause = EVERY
            try:
                if self._questions.next(self._depths.watched(), monotonic()):
                    with closing(self._open()) as sounder:
                        self._watch(sounder)
            except RelayError as error:
                if not self._failing:
                    log.warning("depths_unread", reason=str(error))
                self._failing, pause = True, AFTER_FAILURE
            self._stopped.wait(pause)

    def _watch(self, sounder: Sounder) -> None:
        """Look as long as there is something to ask."""
        asked = monotonic()
        while not self._stopped.is_set() and monotonic() - asked < IDLE:
            if self._look(sounder):
                self._failing, asked = False, monotonic()
            self._stopped.wait(EVERY)

    def _look(self, sounder: Sounder) -> bool:
        """Ask about the queues that are due, and tell of them; whether there were any."""
        passed = self._depths.watched()
        if not (asked := self._questions.next(passed, monotonic())):
            return False
        told, now = sounder.read(asked), monotonic()
        self._questions.answered(told.ready, now)
        self._questions.unanswered(told.absent | told.silent, now)
        before = {queue: passed[queue] for queue in (*told.ready, *told.absent, *told.silent)}
        self._depths.tell(Soundings(before, told.ready, told.silent), now)
        return True
