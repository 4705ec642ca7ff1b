"""The chores beside publishing: promote what is due, count, forget what is old.

None of them keeps a claim from happening: a chore that fails is logged and tried again when it is
due the next time, and a row that it fails over is set apart. Only a database that is gone is more.
One that takes long, among dead rows by the million say, comes so seldom that a tenth of the time
is enough for it.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.budget import Budget
from outbox_relay.core.portion import Portion
from outbox_relay.errors import SchemaError, StatementFailed
from outbox_relay.loop.retention import Retention
from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.store import Store

log = structlog.get_logger()

#: How often parked messages that have become due are promoted, in seconds.
PROMOTE_EVERY: Final = 0.2
#: How many are promoted at a time, at least and at most, so that none of a million that are due at
#: one moment holds up a claim for long; if as many as that are, there may be more.
MIN_PROMOTED: Final = 200
MAX_PROMOTED: Final = 1000
#: How often the gauges of the backlog are refreshed, in seconds.
STATS_EVERY: Final = 5.0
#: How often a chore that goes on failing is logged, in seconds.
REMIND_EVERY: Final = 60.0
#: How often a portion of what is kept is searched for messages without work, in seconds.
RESTORE_EVERY: Final = 60.0


class Housekeeping:
    """Remembers when each chore was last done; `now` is in monotonic seconds."""

    def __init__(self, metrics: Metrics, retention: Retention) -> None:
        self._metrics = metrics
        self._retention = retention
        self._promotions = Budget(PROMOTE_EVERY)
        self._portion = Portion(MIN_PROMOTED, MAX_PROMOTED)
        self._counts = Budget(STATS_EVERY)
        self._logged: dict[str, float] = {}
        self._restored = monotonic()

    def do(self, store: Store, now: float) -> None:
        """Do what is due."""
        if self._promotions.is_due(now):
            self._attempt("promote", now, lambda: self._promote(store))
        if self._counts.is_due(now):
            began = monotonic()
            self._attempt("stats", now, lambda: self._metrics.stats(store.stats()))
            self._attempt("held", now, lambda: self._held(store))
            self._attempt("upkeep", now, lambda: self._metrics.upkeep(store.upkeep()))
            self._counts.took(monotonic() - began)
        self._retention.begin_if_due(now)
        if now - self._restored >= RESTORE_EVERY:
            self._restored = now
            self._attempt("restore_work", now, lambda: self._restore_work(store))

    def promote_soon(self) -> None:
        """Promote with the next chores: something is due."""
        self._promotions.soon()

    def count_soon(self) -> None:
        """Refresh the gauges of the backlog with the next chores: the database is back."""
        self._counts.soon()

    def _attempt(self, chore: str, now: float, work: Callable[[], None]) -> None:
        try:
            work()
        except (StatementFailed, SchemaError) as error:
            if now - self._logged.get(chore, float("-inf")) >= REMIND_EVERY:
                self._logged[chore] = now
                log.error("chore_failed", chore=chore, reason=str(error))

    def _held(self, store: Store) -> None:
        """Show what is held on purpose, and for how long somebody may have forgotten it."""
        self._metrics.paused(store.holding.counts(), store.holding.endless())

    def _promote(self, store: Store) -> None:
        """Promote a portion of what is due."""
        began, more = monotonic(), True
        try:
            more = self._promote_some(store, self._portion.size)
        finally:
            self._promotions.took(took := monotonic() - began)
            if more:
                self._portion.took(took)
        if more:
            self._promotions.more()

    def _promote_some(self, store: Store, limit: int) -> bool:
        """Promote at most so many; whether there may be more. A row that cannot be is set apart."""
        while True:
            try:
                return store.promote(limit) == limit
            except StatementFailed as error:
                if not error.row_fault:
                    raise
                if limit == 1:
                    log.error("message_set_apart", message_id=store.set_apart(str(error)))
                    return False
                limit = max(1, limit // 4)

    def _restore_work(self, store: Store) -> None:
        if found := store.restore_work():
            log.warning("work_restored", messages=found)
