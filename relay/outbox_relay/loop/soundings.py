"""Asks the broker how deep queues are, twice a second, on a thread and a connection of its own.

While it cannot be asked nothing is heard, and after a while nothing is held: `core/depths.py`.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Final, Self

import structlog

from outbox_relay.broker.sounder import Sounder
from outbox_relay.core.depths import Depths, Soundings
from outbox_relay.errors import RelayError

log = structlog.get_logger()

#: Between two looks, in seconds; and after one that failed.
EVERY: Final = 0.5
AFTER_FAILURE: Final = 2.0


class DepthWatch:
    """Looks every so often; a context manager that stops it."""

    def __init__(self, depths: Depths, open_sounder: Callable[[], Sounder]) -> None:
        self._depths, self._open = depths, open_sounder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="depths", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def _run(self) -> None:
        failing = False
        while not self._stopped.is_set():
            try:
                with closing(self._open()) as sounder:
                    failing = False
                    self._watch(sounder)
            except RelayError as error:
                if not failing:
                    log.warning("depths_unread", reason=str(error))
                failing = True
            self._stopped.wait(AFTER_FAILURE)

    def _watch(self, sounder: Sounder) -> None:
        while not self._stopped.is_set():
            if passed := self._depths.watched():
                self._depths.tell(Soundings(passed, sounder.read(passed)))
            self._stopped.wait(EVERY)
