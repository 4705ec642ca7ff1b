"""Forgets what was sent long ago, on a connection and a thread of its own.

It may take long, and fail: no claim waits for it, and no claim is lost with its connection.
"""

from collections.abc import Callable
from typing import Final

import structlog

from outbox_relay.core.thread import ContextThread
from outbox_relay.errors import RelayError

log = structlog.get_logger()

#: How often it runs, in seconds.
PURGE_EVERY: Final = 60.0


class Retention:
    """Runs `purge`, which connects, forgets and returns how many, once a minute and never twice."""

    def __init__(self, purge: Callable[[], int], now: float) -> None:
        self._purge = purge
        self._begun = now
        self._thread: ContextThread | None = None

    @property
    def running(self) -> bool:
        """Whether a run has not ended yet."""
        return self._thread is not None and self._thread.is_alive()

    def begin_if_due(self, now: float) -> None:
        """Begin a run if it is time for one and the last has ended; `now` in monotonic seconds."""
        if now - self._begun < PURGE_EVERY or self.running:
            return
        self._begun = now
        # A daemon: the end of the process does not wait for it, and what it has committed stays.
        self._thread = ContextThread(target=self._run, name="retention", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if gone := self._purge():
                log.info("purged", messages=gone)
        except RelayError as error:
            log.error("chore_failed", chore="purge", reason=str(error))
