"""The names and label values that dashboards rely on, and no label without end."""

from math import isnan, nan

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from outbox_relay.core.backlog import Counts, HeldBack, Stats, Upkeep
from outbox_relay.core.depth import Depth
from outbox_relay.core.message import Outcomes, Reason, Refusal
from outbox_relay.observe.histogram import BulkHistogram
from outbox_relay.observe.metrics import MAX_ROUTES, Metrics
from tests.relay.messages import a_message

PROMISED = {
    "outbox_pending_messages",
    "outbox_scheduled_messages",
    "outbox_dead_messages",
    "outbox_oldest_pending_age_seconds",
    "outbox_published_total",
    "outbox_publish_failures_total",
    "outbox_returned_total",
    "outbox_confirm_seconds",
    "outbox_delivery_seconds",
    "outbox_batch_messages",
    "outbox_in_flight_messages",
    "outbox_fenced_messages",
    "outbox_broker_up",
    "outbox_broker_blocked",
    "outbox_database_up",
    "outbox_last_confirm_timestamp_seconds",
    "outbox_work_table_bytes",
    "outbox_work_table_dead_tuples",
    "outbox_horizon_age_seconds",
    "outbox_counts_age_seconds",
    "outbox_execution_seconds",
    "outbox_build_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
}

COUNTS = Counts(Stats(7, 3, 1, 2.5), Upkeep(1, 2, 3, 4, 5.0), HeldBack((("queue:mail", 5),), 8.0))


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample as Prometheus reads it, by name and labels."""
    text = generate_latest(metrics.registry).decode()
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def confirmed(count: int, exchange: str = "", routing_key: str = "celery") -> Outcomes:
    """Confirms of that many messages on a route."""
    message = a_message(exchange=exchange, routing_key=routing_key)
    return Outcomes([message] * count, [], [(0.003, count)])


def test_every_promised_name_is_there() -> None:
    """Also before anything has happened: an absent series looks like a broken relay."""
    metrics = Metrics()
    metrics.count_outcomes(confirmed(1))
    shown = {name.partition("[")[0] for name in samples(metrics)}
    families = shown | {name.removesuffix("_bucket") for name in shown}

    assert families >= PROMISED


def test_queues_are_shown_as_long_as_they_are_known() -> None:
    """A queue that is gone, or cannot be asked for, must not keep its last number."""
    metrics = Metrics()

    metrics.queues(
        [Depth("celery", 7, 0), Depth("mail", 3, None), Depth("hangs", 0, None, silent=True)]
    )

    shown = samples(metrics)
    assert shown["outbox_queue_depth[('queue', 'celery')]"] == 7
    assert shown["outbox_queue_consumers[('queue', 'celery')]"] == 0
    assert shown["outbox_queue_depth[('queue', 'mail')]"] == 3
    assert "outbox_queue_consumers[('queue', 'mail')]" not in shown

    metrics.queues([])

    assert not [name for name in samples(metrics) if name.startswith("outbox_queue_")]


def test_confirms_are_counted_by_route() -> None:
    """As many as were confirmed, under exchange and routing key."""
    metrics = Metrics()
    metrics.count_outcomes(confirmed(3))
    metrics.count_outcomes(confirmed(2, "events", "shop.order"))

    shown = samples(metrics)

    assert shown["outbox_published_total[('exchange', ''), ('routing_key', 'celery')]"] == 3
    route = "[('exchange', 'events'), ('routing_key', 'shop.order')]"
    assert shown[f"outbox_published_total{route}"] == 2
    assert shown["outbox_confirm_seconds_count"] == 5
    assert shown["outbox_delivery_seconds_count"] == 5
    assert shown["outbox_last_confirm_timestamp_seconds"] > 0


def test_routes_are_labels_only_up_to_a_bound() -> None:
    """A routing key per customer must not become a series per customer."""
    metrics = Metrics()
    for number in range(MAX_ROUTES + 50):
        metrics.count_outcomes(confirmed(1, "events", f"customer.{number}"))

    published = {n: v for n, v in samples(metrics).items() if n.startswith("outbox_published_t")}

    assert len(published) == MAX_ROUTES + 1
    other = "outbox_published_total[('exchange', 'other'), ('routing_key', 'other')]"
    assert published[other] == 50
    assert sum(published.values()) == MAX_ROUTES + 50


def test_refusals_are_counted_by_reason() -> None:
    """Every reason is a series from the start; a return also counts as one."""
    metrics = Metrics()
    message = a_message()
    metrics.count_outcomes(Outcomes([], [Refusal(message, Reason.UNROUTABLE, "")] * 2, []))
    metrics.count_refused([Refusal(message, Reason.INVALID, "")])

    shown = samples(metrics)

    counts = {r: shown[f"outbox_publish_failures_total[('reason', '{r}')]"] for r in Reason}
    expected: dict[Reason, float] = dict.fromkeys(Reason, 0)
    assert counts == expected | {Reason.UNROUTABLE: 2, Reason.INVALID: 1}
    assert shown["outbox_returned_total"] == 2


def test_the_backlog_is_shown_as_the_database_counts_it() -> None:
    """The four gauges of `outbox.stats`."""
    metrics = Metrics()
    metrics.stats(Stats(pending=7, scheduled=3, dead=1, oldest_pending_age=2.5))

    shown = samples(metrics)

    assert shown["outbox_pending_messages"] == 7
    assert shown["outbox_scheduled_messages"] == 3
    assert shown["outbox_dead_messages"] == 1
    assert shown["outbox_oldest_pending_age_seconds"] == 2.5


def test_the_upkeep_is_shown_by_table() -> None:
    """Size and dead rows of both hot tables, and the horizon where it can be seen."""
    metrics = Metrics()
    metrics.upkeep(Upkeep(1, 2, 3, 4, nan))

    shown = samples(metrics)

    assert shown["outbox_work_table_bytes[('table', 'ready')]"] == 1
    assert shown["outbox_work_table_bytes[('table', 'parked')]"] == 2
    assert shown["outbox_work_table_dead_tuples[('table', 'ready')]"] == 3
    assert shown["outbox_work_table_dead_tuples[('table', 'parked')]"] == 4
    assert isnan(shown["outbox_horizon_age_seconds"])


def test_what_is_unknown_is_not_shown_as_a_number() -> None:
    """Neither before the database has answered nor once it is lost: a frozen lag would mislead."""
    metrics = Metrics()
    assert isnan(samples(metrics)["outbox_pending_messages"])

    metrics.database_found()
    metrics.counts(COUNTS)
    assert samples(metrics)["outbox_pending_messages"] == 7
    metrics.database_lost()
    metrics.counts(COUNTS)  # a count that was under way

    unknown = {name for name, value in samples(metrics).items() if isnan(value)}
    assert unknown == {
        "outbox_pending_messages",
        "outbox_scheduled_messages",
        "outbox_dead_messages",
        "outbox_oldest_pending_age_seconds",
        "outbox_endless_pause_age_seconds",
        "outbox_counts_age_seconds",
        "outbox_broker_memory_ratio",
        "outbox_horizon_age_seconds",
        "outbox_missing_unchecked_seconds",
        *(
            f"outbox_work_table_{what}[('table', '{table}')]"
            for what in ("bytes", "dead_tuples")
            for table in ("ready", "parked")
        ),
    }
    assert samples(metrics)["outbox_database_up"] == 0


def test_what_could_not_be_counted_stays_as_it_was_and_grows_old() -> None:
    """The age is since all of it was known; a part that is missing hides no other."""
    metrics = Metrics()
    metrics.database_found()
    metrics.counts(COUNTS)
    before = samples(metrics)

    metrics.counts(Counts(None, Upkeep(9, 9, 9, 9, 9.0), None, (("stats", "it took too long"),)))

    shown = samples(metrics)
    assert shown["outbox_pending_messages"] == 7
    assert shown["outbox_paused_messages[('route', 'queue:mail')]"] == 5
    assert shown["outbox_horizon_age_seconds"] == 9
    assert shown["outbox_counts_age_seconds"] > before["outbox_counts_age_seconds"]


def test_a_histogram_counts_many_at_once() -> None:
    """Buckets are cumulative and a bound belongs to its own bucket, as in Prometheus."""
    histogram = BulkHistogram("seconds", "text", bounds=(1, 5))
    histogram.observe(1.0, 3)
    histogram.observe(2.0, 2)
    histogram.observe(9.0)

    (family,) = histogram.collect()

    values = {(s.name, s.labels.get("le")): s.value for s in family.samples}
    assert values == {
        ("seconds_bucket", "1.0"): 3,
        ("seconds_bucket", "5.0"): 5,
        ("seconds_bucket", "+Inf"): 6,
        ("seconds_count", None): 6,
        ("seconds_sum", None): 16,
    }
