"""What is shown of many outboxes: the metrics of each with a label `outbox`, and one health of all.

So many names are labels; the outboxes beyond are shown together, as `other`. What counts never goes
back: of an outbox that is gone, its part of `other` stays.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from outbox_relay.many.together import Families, Key, add_named, add_together, counted
from outbox_relay.observe.health import Health
from outbox_relay.observe.metrics import Metrics, build_info

OTHER: Final = "other"
#: The most outboxes that are shown by name.
MAX_NAMED: Final = 500
#: Routes by name for each: many outboxes are as many times the series.
MAX_ROUTES: Final = 20


class Overall(Health):
    """The health of all outboxes: ready while any reaches its database, unless no broker is there.

    An outbox that is away does not take the others' process out of service. One that has nothing to
    publish has no connection to its broker, so whoever serves them says when all brokers are away.
    """

    def __init__(self, each: Callable[[], Mapping[str, Health]]) -> None:
        super().__init__()
        self._each = each
        self.broker_up = True

    @property
    def ready(self) -> bool:
        """Whether messages of any outbox can be published now."""
        known = [health.database_up for health in self._each().values()]
        return self.alive and self.broker_up and (any(known) or not known)

    @property
    def summary(self) -> str:
        """The same in words, with how many do not reach their database."""
        known = [health.database_up for health in self._each().values()]
        away = known.count(False)
        of_all = f"{away} of {len(known)} outboxes have no connection to their database"
        if self.ready:
            return f"ready; {of_all}" if away else "ready"
        if not self.alive:
            return "stalled"
        return of_all if self.broker_up else "no connection to: broker"

    def of(self, outbox: str) -> Health | None:
        """That of one of them; of all without a name."""
        return self._each().get(outbox) if outbox else self


class Boards(Collector):
    """The metrics and the health of each outbox, and all of them together. Thread-safe."""

    def __init__(self, *, max_named: int = MAX_NAMED) -> None:
        self.registry = CollectorRegistry()
        self.health = Overall(self._healths)
        self._max_named = max_named
        self._lock = threading.Lock()
        self._boards: dict[str, tuple[Metrics, Health]] = {}
        self._named: set[str] = set()
        self._gone = Counter[Key]()
        ProcessCollector(registry=self.registry)
        build_info(self.registry)
        self.registry.register(self)

    def board(self, name: str) -> tuple[Metrics, Health]:
        """Those of that outbox; the same each time."""
        with self._lock:
            if name not in self._boards:
                if len(self._named) < self._max_named:
                    self._named.add(name)
                self._boards[name] = Metrics(alone=False, max_routes=MAX_ROUTES), Health()
            return self._boards[name]

    def forget(self, name: str) -> None:
        """The outbox is gone: show it no longer."""
        with self._lock:
            if (board := self._boards.pop(name, None)) is None:
                return
            if name in self._named:
                self._named.remove(name)
            else:
                self._gone.update(counted(board[0].registry.collect()))

    def collect(self) -> Iterator[Metric]:
        """Each family once, with the samples of all outboxes."""
        with self._lock:
            named = {name: self._boards[name][0] for name in self._boards if name in self._named}
            others = [board[0] for name, board in self._boards.items() if name not in self._named]
            gone = dict(self._gone)
        families: Families = {}
        for name, metrics in named.items():
            add_named(families, name, metrics.registry.collect())
        if others or gone:
            add_together(families, OTHER, (each.registry.collect() for each in others), gone)
        yield from families.values()

    def describe(self) -> Iterator[Metric]:
        """Nothing before there is an outbox."""
        yield from ()

    def _healths(self) -> dict[str, Health]:
        with self._lock:
            return {name: health for name, (_, health) in self._boards.items()}
