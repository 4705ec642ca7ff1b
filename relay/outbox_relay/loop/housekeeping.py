"""The chores beside publishing: promote what is due, count, forget what is old."""

from typing import Final

import structlog

from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.store import Store

log = structlog.get_logger()

#: How often parked messages that have become due are promoted, in seconds.
PROMOTE_EVERY: Final = 0.2
#: How many are promoted at a time; if as many as that are, there may be more.
MAX_PROMOTED: Final = 1000
#: How often the gauges of the backlog are refreshed, in seconds.
STATS_EVERY: Final = 5.0
#: How often retention runs, in seconds.
PURGE_EVERY: Final = 60.0


class Housekeeping:
    """Remembers when each chore was last done; `now` is in monotonic seconds."""

    def __init__(self, metrics: Metrics, retention: float, now: float) -> None:
        self._metrics = metrics
        self._retention = retention
        self._promoted = self._counted = 0.0
        self._purged = now

    def do(self, store: Store, now: float) -> None:
        """Do what is due."""
        if now - self._promoted >= PROMOTE_EVERY:
            self._promoted = now if store.promote() < MAX_PROMOTED else 0.0
        if now - self._counted >= STATS_EVERY:
            self._counted = now
            self._metrics.stats(store.stats())
            self._metrics.upkeep(store.upkeep())
        # With retention 0 as well: receipts, and what a crash kept from being forgotten.
        if now - self._purged >= PURGE_EVERY:
            self._purged = now
            if gone := store.purge(self._retention):
                log.info("purged", messages=gone)

    def count_soon(self) -> None:
        """Show the backlog at the next opportunity: the database is back."""
        self._counted = 0.0
