"""Counts what the outbox holds, for the metrics, on a thread and a connection of its own.

A count may hang, at a lock or in a bloated table: no message waits for it. It ends with the
deadline of its statements, and the next one begins after it; what was counted last stays till then.
"""

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.backlog import Counts
from outbox_relay.core.budget import Budget
from outbox_relay.core.thread import ContextThread
from outbox_relay.errors import RelayError, StoreLost
from outbox_relay.loop.incidents import ChoreFailures
from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.counting import Counter

log = structlog.get_logger()

#: How often it counts, in seconds: less often while the relay does its chores less often.
COUNT_EVERY: Final = 5.0


class Counting:
    """One count at a time. The loop says when, and so never while the database is away."""

    def __init__(self, open_counter: Callable[[], Counter], metrics: Metrics) -> None:
        self._open, self._metrics = open_counter, metrics
        self._due = Budget(COUNT_EVERY)
        self._failures = ChoreFailures()
        self._at_work = Lock()
        self._counter: Counter | None = None  # kept for the next count
        self._closed = False

    def begin_if_due(self, now: float) -> None:
        """Begin a count if it is time for one, and the last has ended; `now` as `monotonic` has."""
        if self._at_work.locked() or not self._due.is_due(now):
            return
        # A daemon: the end of the process does not wait for it.
        ContextThread(target=self._run, name="counts", daemon=True).start()

    def soon(self) -> None:
        """Count with the next chores: the database is back."""
        self._due.soon()

    def close(self) -> None:
        """Close the connection, or leave that to the count that is still under way."""
        self._closed = True
        if self._at_work.acquire(blocking=False):
            self._hang_up()
            self._at_work.release()

    def _run(self) -> None:
        with self._at_work:
            began = monotonic()
            try:
                self._tell(self._count())
            except RelayError as error:
                self._failures.note("count", str(error), monotonic())
            finally:
                self._due.took(monotonic() - began)
        if self._closed:
            self.close()

    def _count(self) -> Counts:
        """What there is; with another connection, if the last one is gone."""
        if self._counter is not None:
            try:
                return self._counter.counts()
            except StoreLost:
                self._hang_up()
        self._counter = self._open()
        try:
            return self._counter.counts()
        except RelayError:
            self._hang_up()
            raise

    def _tell(self, counts: Counts) -> None:
        self._metrics.counts(counts)
        for part, reason in counts.failures:
            self._failures.note(part, reason, monotonic())

    def _hang_up(self) -> None:
        if self._counter is not None:
            self._counter.close()
        self._counter = None
