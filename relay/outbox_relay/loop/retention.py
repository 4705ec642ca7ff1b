"""Forgets what was sent long ago, and restores lost work, on a connection and thread of its own.

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
    """Runs `tidy` once a minute, and never twice at a time.

    That connects, and returns how many messages have their work back, and how many were forgotten.
    """

    def __init__(self, tidy: Callable[[], tuple[int, int]], now: float) -> None:
        self._tidy = tidy
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
            tell(*self._tidy())
        except RelayError as error:
            log.error("chore_failed", chore="tidy", reason=str(error))


def tell(restored: int, purged: int) -> None:
    """Log what there was to do."""
    if restored:
        log.warning("work_restored", messages=restored)
    if purged:
        log.info("purged", messages=purged)
