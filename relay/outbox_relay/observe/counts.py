"""The gauges of what the database tells: what the outbox holds, and whether vacuum keeps up.

They are NaN while the database is away. Where a count takes long, or fails, the last one stays, and
its age tells how old that is. The table of all names is in `metrics.py`.
"""

from collections.abc import Iterable
from math import nan
from threading import Lock
from time import monotonic

from prometheus_client import CollectorRegistry, Gauge

from outbox_relay.core.backlog import Counts, Stats, Upkeep


class CountGauges:
    """Those of one outbox. May be told on any thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"outbox_{name}", text, registry=registry)

        self.pending = gauge("pending_messages", "To be published")
        self.scheduled = gauge("scheduled_messages", "Held until their eta")
        self.dead = gauge("dead_messages", "Given up")
        self.oldest = gauge("oldest_pending_age_seconds", "Age of the oldest pending message")
        self.database_up = gauge("database_up", "Whether the database is connected")
        self.bytes = Gauge(
            "outbox_work_table_bytes", "Size of a hot table", ["table"], registry=registry
        )
        self.dead_tuples = Gauge(
            "outbox_work_table_dead_tuples", "Rows to be vacuumed", ["table"], registry=registry
        )
        self.horizon = gauge("horizon_age_seconds", "Age of what keeps vacuum from removing rows")
        self.held = Gauge("outbox_paused_messages", "Held on purpose", ["route"], registry=registry)
        self.endless = gauge("endless_pause_age_seconds", "Age of the oldest pause with no end")
        self.counts_age = gauge("counts_age_seconds", "Since what the database tells was counted")
        self.counts_age.set_function(self._age_of_counts)
        self._counted: float | None = None  # when all of it was, in monotonic seconds
        self._database = Lock()  # who counts is told that the database is away while it counts
        self._database_there = False
        self.database_lost()

    def counts(self, counts: Counts) -> None:
        """Show what was counted; not what comes to be known only once the database is away."""
        with self._database:
            if not self._database_there:
                return
            if counts.stats is not None:
                self.stats(counts.stats)
            if counts.upkeep is not None:
                self.upkeep(counts.upkeep)
            if counts.held is not None:
                self.paused(counts.held.counts, counts.held.endless)
            if not counts.failures:
                self._counted = monotonic()

    def _age_of_counts(self) -> float:
        counted = self._counted
        return nan if counted is None else monotonic() - counted

    def stats(self, stats: Stats) -> None:
        """Show what the outbox holds."""
        self.pending.set(stats.pending)
        self.scheduled.set(stats.scheduled)
        self.dead.set(stats.dead)
        self.oldest.set(stats.oldest_pending_age)

    def upkeep(self, upkeep: Upkeep) -> None:
        """Show whether vacuum keeps up."""
        self.bytes.labels("ready").set(upkeep.ready_bytes)
        self.bytes.labels("parked").set(upkeep.parked_bytes)
        self.dead_tuples.labels("ready").set(upkeep.ready_dead_tuples)
        self.dead_tuples.labels("parked").set(upkeep.parked_dead_tuples)
        self.horizon.set(upkeep.horizon_age)

    def paused(self, counts: Iterable[tuple[str, int]], endless: float) -> None:
        """Show what is held on purpose, by what holds it, and how old a pause with no end is."""
        self.endless.set(endless)
        self.held.clear()
        for target, messages in counts:
            self.held.labels(target).set(messages)

    def database_found(self) -> None:
        """It is connected."""
        with self._database:
            self._database_there = True
        self.database_up.set(1)

    def database_lost(self) -> None:
        """Unknown is not zero, and the last numbers must not look like today's."""
        self.database_up.set(0)
        with self._database:
            self._database_there = False
            self._counted = None
            self.held.clear()
            shown = [self.pending, self.scheduled, self.dead, self.oldest]
            shown += [self.endless, self.horizon]
            for table in ("ready", "parked"):
                shown += [self.bytes.labels(table), self.dead_tuples.labels(table)]
            for gauge in shown:
                gauge.set(nan)
