"""Looks after messages that wait behind the fence: renews their claims, and logs a long wait.

While standbys are away nothing is published, given up or charged; it goes on when they are back.
"""

from time import monotonic

from outbox_relay.core.fence import Fence
from outbox_relay.loop.incidents import Outage
from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.store import Store


class Fenced:
    """Does that for one fence."""

    def __init__(self, fence: Fence, metrics: Metrics) -> None:
        self._fence = fence
        self._metrics = metrics
        self._standbys = Outage("standbys", monotonic)
        self._shown = 0
        metrics.fenced.set(0)

    def look_after(self, store: Store, now: float) -> None:
        """Renew the claims that are due, and log it where messages have waited for long."""
        fence = self._fence
        if held := fence.renewal(now):
            store.renew(held, fence.lease)
        if (waiting := fence.messages) != self._shown:
            self._shown = waiting
            self._metrics.fenced.set(waiting)
        if complaint := fence.complaint(now):
            self._standbys.lost(complaint)
        elif fence.standbys:
            self._standbys.works()
