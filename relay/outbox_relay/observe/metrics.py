"""Every Prometheus name of the relay, in one place. The names are public: dashboards rely on them.

| name | type | meaning |
|---|---|---|
| outbox_pending_messages | gauge | to be published now, or after another attempt's pause |
| outbox_scheduled_messages | gauge | held until their eta |
| outbox_dead_messages | gauge | given up, waiting for a person |
| outbox_oldest_pending_age_seconds | gauge | lag, but for what is paused or limited |
| outbox_published_total | counter | confirmed, by exchange and routing_key (100, then "other") |
| outbox_publish_failures_total | counter | refused, by reason |
| outbox_returned_total | counter | came back unroutable |
| outbox_expired_total | counter | ended, as their time had passed |
| outbox_confirm_seconds | histogram | publish to confirm |
| outbox_delivery_seconds | histogram | inserted (or due) to confirm |
| outbox_batch_messages | histogram | messages claimed at a time |
| outbox_in_flight_messages | gauge | published, not confirmed |
| outbox_fenced_messages | gauge | claimed, and waiting for standbys (`OUTBOX_FENCE`) |
| outbox_broker_up, outbox_broker_blocked, outbox_database_up | gauge | 1 or 0 |
| outbox_broker_memory_ratio | gauge | Redis: the part of maxmemory that is used; else NaN |
| outbox_last_confirm_timestamp_seconds | gauge | when the broker last confirmed anything |
| outbox_work_table_bytes | gauge | size of the hot tables, by table: ready, parked |
| outbox_work_table_dead_tuples | gauge | rows in them that vacuum has yet to remove, by table |
| outbox_horizon_age_seconds | gauge | how long a transaction has kept vacuum from removing rows |
| outbox_queue_depth | gauge | messages ready, by queue: the 50 that most of a sample goes to |
| outbox_queue_consumers | gauge | by queue; on Redis 0 where nobody can be popping, else absent |
| outbox_dead_letters_home_total | counter | came home from the broker's dead letters, by reason |
| outbox_dead_letters_left | gauge | not of this outbox: left among the dead letters, by queue |
| outbox_unknown_task_messages | gauge | of a sample, by task and queue: no worker knows it |
| outbox_execution_seconds | histogram | a task's commit (or eta) to its end, by its receipt |
| outbox_missing_messages | gauge | confirmed 5 minutes ago, and not finished; by place |
| outbox_missing_unchecked_seconds | gauge | what was confirmed since is not looked at yet |
| outbox_paused_messages | gauge | held on purpose, by route: what holds them, as queue:mail |
| outbox_endless_pause_age_seconds | gauge | how long the oldest pause with no end has lasted |
| outbox_counts_age_seconds | gauge | how old the counts are: what the database tells |
| outbox_spans_dropped_total | counter | of traces (`OUTBOX_TRACING`): no collector took them |
| outbox_build_info | gauge | 1, labelled with the version |
| process_* | | of the process, under Prometheus' usual names: CPU, memory, descriptors, start |

What became of messages is looked at every 30 seconds by one relay of an outbox, and absent from
the others, and where no worker leaves receipts. Tasks that end are counted up to 1,000 a look.

Queues are looked at every 30 seconds, and absent while they are unknown.

What the database tells is counted every 5 seconds and NaN while it is unknown: before the first
answer, while the database is away, and the horizon also where this login may not see it. Where a
count takes long, or fails, the last one stays.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from math import nan
from operator import attrgetter
from time import monotonic, time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from outbox_relay.core.dead_letter import KINDS
from outbox_relay.core.depth import Depth
from outbox_relay.core.effects import Seen
from outbox_relay.core.memory import Used
from outbox_relay.core.message import Message, Outcomes, Reason, Refusal
from outbox_relay.core.place import Place
from outbox_relay.observe.counts import CountGauges
from outbox_relay.observe.histogram import BulkHistogram

SECONDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    300,
)
#: Of what workers do: up to a day.
LONG: Final = (*SECONDS, 900, 3600, 21_600, 86_400)
MESSAGES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
#: The most routes that are counted by name: routing keys made of arguments would have no end.
MAX_ROUTES: Final = 100
_route: Callable[[Message], tuple[str, str]] = attrgetter("exchange", "routing_key")


def build_info(registry: CollectorRegistry) -> None:
    """Have the registry show the version."""
    info = Gauge("outbox_build_info", "Version", ["version"], registry=registry)
    info.labels(version("outbox-relay")).set(1)


class Metrics(CountGauges):
    """What one relay measures. One of many in a process has those of the process beside it.

    So many routes are counted by name.
    """

    def __init__(self, *, alone: bool = True, max_routes: int = MAX_ROUTES) -> None:
        self.registry = registry = CollectorRegistry()
        super().__init__(registry)
        self._max_routes = max_routes
        if alone:
            ProcessCollector(registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"outbox_{name}", text, registry=registry)

        def histogram(name: str, text: str, bounds: Sequence[float]) -> BulkHistogram:
            made = BulkHistogram(f"outbox_{name}", text, bounds)
            registry.register(made)
            return made

        self.in_flight = gauge("in_flight_messages", "Published and not yet confirmed")
        self.fenced = gauge("fenced_messages", "Claimed, and waiting for standbys")
        self.broker_up = gauge("broker_up", "Whether the broker is connected")
        self.broker_blocked = gauge("broker_blocked", "Whether the broker has an alarm")
        self.broker_memory = gauge("broker_memory_ratio", "Part of the broker's memory in use")
        self.last_confirm = gauge("last_confirm_timestamp_seconds", "Time of the last confirm")
        self.published = Counter(
            "outbox_published", "Confirmed", ["exchange", "routing_key"], registry=registry
        )
        self.failures = Counter("outbox_publish_failures", "Refused", ["reason"], registry=registry)
        self.returned = Counter("outbox_returned", "Came back unroutable", registry=registry)
        self.expired = Counter(
            "outbox_expired", "Ended, as their time had passed", registry=registry
        )
        self.confirm = histogram("confirm_seconds", "Publish to confirm", SECONDS)
        self.delivery = histogram("delivery_seconds", "Inserted or due to confirm", SECONDS)
        self.batch = histogram("batch_messages", "Messages claimed at a time", MESSAGES)
        self.depth = Gauge(
            "outbox_queue_depth", "Messages ready in a queue", ["queue"], registry=registry
        )
        self.consumers = Gauge(
            "outbox_queue_consumers", "Who takes them", ["queue"], registry=registry
        )
        self.dead_letters = Counter(
            "outbox_dead_letters_home", "Came home from the broker", ["reason"], registry=registry
        )
        self.dead_letters_left = Gauge(
            "outbox_dead_letters_left", "Left among the dead letters", ["queue"], registry=registry
        )
        for kind in KINDS:
            self.dead_letters.labels(kind)
        self.unknown = Gauge(
            "outbox_unknown_task_messages",
            "Waiting, and no live worker of the queue knows the task",
            ["task", "queue"],
            registry=registry,
        )
        self.execution = histogram("execution_seconds", "Commit or eta to the task's end", LONG)
        self.missing = Gauge(
            "outbox_missing_messages",
            "Confirmed 5 minutes ago or longer, and not finished",
            ["place"],
            registry=registry,
        )
        self.unchecked = gauge("missing_unchecked_seconds", "Confirmed since: not looked at yet")
        self.spans_dropped = Counter(
            "outbox_spans_dropped", "No collector took them", registry=registry
        )
        if alone:
            build_info(registry)
        for reason in Reason:
            self.failures.labels(reason)
        self.effects(None)
        self.memory(Used())
        self._routes: set[tuple[str, str]] = set()

    def count_outcomes(self, outcomes: Outcomes) -> None:
        """Count what one poll of the broker brought."""
        if outcomes.confirmed:
            self._confirmed(outcomes.confirmed)
        for seconds, count in outcomes.latencies:
            self.confirm.observe(seconds, count)
        self.count_refused(outcomes.refused)

    def count_refused(self, refusals: Iterable[Refusal]) -> None:
        """Count messages the broker did not take, or was never asked to."""
        for refusal in refusals:
            if refusal.reason is Reason.EXPIRED or refusal.wait:
                continue
            self.failures.labels(refusal.reason).inc()
            if refusal.reason is Reason.UNROUTABLE:
                self.returned.inc()

    def _confirmed(self, messages: list[Message]) -> None:
        now = monotonic()
        self.delivery.observe_each([now - message.born for message in messages])
        for route, count in Tally(map(_route, messages)).items():
            self.published.labels(*self._bounded(route)).inc(count)
        self.last_confirm.set(time())

    def _bounded(self, route: tuple[str, str]) -> tuple[str, str]:
        if route in self._routes:
            return route
        if len(self._routes) >= self._max_routes:
            return ("other", "other")
        self._routes.add(route)
        return route

    def memory(self, used: Used) -> None:
        """Show how much of its memory the broker uses, where that is bounded."""
        self.broker_memory.set(used.part)

    def queues(self, depths: Iterable[Depth]) -> None:
        """Show how deep queues are and who empties them; what was shown before is no longer."""
        self.depth.clear()
        self.consumers.clear()
        for each in depths:
            if each.silent:
                continue
            self.depth.labels(each.queue).set(each.messages)
            if each.consumers is not None:
                self.consumers.labels(each.queue).set(each.consumers)

    def unknown_tasks(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Show tasks, each with its queue, that no live worker knows; and none but these."""
        self.unknown.clear()
        for name, count in counts.items():
            self.unknown.labels(*name).set(count)

    def effects(self, seen: Seen | None) -> None:
        """Show what became of messages; nothing where another relay does so, or nobody can."""
        self.missing.clear()
        if seen is None:
            self.unchecked.set(nan)
            return
        self.execution.observe_each(seen.executions)
        for place in Place:
            self.missing.labels(place).set(seen.missing.get(place, 0))
        self.unchecked.set(seen.unchecked)
