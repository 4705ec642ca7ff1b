"""Panels about messages: how many flow, wait, fail and arrive, and how late."""

from typing import Final

from grafana.panels import JOB, RATE, SERIES, THIRD, curves, number, quantiles

ANSWERS: Final = (
    number(
        "Lag",
        "Age of the oldest message that is due, not confirmed, and not held on purpose.",
        f"max(outbox_oldest_pending_age_seconds{SERIES})",
        "s",
        {"yellow": 10, "red": 60},
    ),
    number(
        "Pending",
        "Messages to be published now, or after another attempt's pause.",
        f"sum(max by (outbox) (outbox_pending_messages{SERIES}))",
        "short",
        {"yellow": 10_000, "red": 100_000},
    ),
    number(
        "Published",
        "Messages confirmed by the broker per second, all relays together.",
        f"sum(rate(outbox_confirm_seconds_count{RATE}))",
        "mps",
        {},
    ),
    number(
        "Last confirm",
        "Time since the broker last confirmed anything. Long is fine while nothing is pending.",
        f"time() - (max(outbox_last_confirm_timestamp_seconds{SERIES}) > 0)",
        "s",
        {},
    ),
    number(
        "Dead",
        "Messages given up: somebody has to look (outbox-relay dead).",
        f"sum(max by (outbox) (outbox_dead_messages{SERIES}))",
        "short",
        {"red": 1},
    ),
    number(
        "Relays",
        "Relays that answer Prometheus.",
        f"sum(up{JOB})",
        "short",
        {"green": 1},
        below="red",
    ),
)

FLOW: Final = (
    curves(
        "Published by route",
        "Confirmed messages per second, by exchange and routing key; the ten busiest.",
        [
            (
                f"topk(10, sum by (exchange, routing_key) (rate(outbox_published_total{RATE})))",
                "{{exchange}} {{routing_key}}",
            )
        ],
        "mps",
    ),
    curves(
        "Backlog",
        "Messages to be published, and messages held until their eta.",
        [
            (f"sum(max by (outbox) (outbox_pending_messages{SERIES}))", "pending"),
            (f"sum(max by (outbox) (outbox_scheduled_messages{SERIES}))", "scheduled"),
        ],
        "short",
    ),
)

HELD: Final = (
    curves(
        "Held on purpose",
        "Messages that wait in the outbox for the end of a pause, their turn (rate:) or room in "
        "their queue (depth:); the ten with most. outbox-relay routes says who and why.",
        [
            (
                "topk(10, sum by (route) "
                f"(max by (outbox, route) (outbox_paused_messages{SERIES})))",
                "{{route}}",
            )
        ],
        "short",
        THIRD,
    ),
    curves(
        "Pause with no end",
        "For how long the oldest pause that nobody gave an end has lasted.",
        [(f"max(outbox_endless_pause_age_seconds{SERIES})", "oldest")],
        "dtdhms",
        THIRD,
    ),
    curves(
        "Redis memory",
        "The part of maxmemory in use. From OUTBOX_REDIS_MAX_MEMORY on queues are kept short.",
        [(f"max(outbox_broker_memory_ratio{SERIES})", "used")],
        "percentunit",
        THIRD,
        most=1,
    ),
)

LAG: Final = (
    curves(
        "Oldest pending message",
        "Age of the oldest message that is due, not confirmed, and not held on purpose.",
        [(f"max(outbox_oldest_pending_age_seconds{SERIES})", "oldest")],
        "s",
    ),
    curves(
        "Delivery time",
        "From insertion (or the eta) to the broker's confirm, over the messages confirmed.",
        quantiles("outbox_delivery_seconds"),
        "s",
    ),
)

CONFIRMS: Final = (
    curves(
        "Confirm time",
        "From publishing to the broker's confirm: what the broker makes of it.",
        quantiles("outbox_confirm_seconds"),
        "s",
        THIRD,
    ),
    curves(
        "In flight",
        "Messages published and not yet confirmed, by relay. At the window, the broker is slow. "
        "Before the fence: claimed, and waiting for standbys.",
        [
            (f"sum by (instance) (outbox_in_flight_messages{SERIES})", "{{instance}}"),
            (
                f"sum by (instance) (outbox_fenced_messages{SERIES})",
                "{{instance}}, before the fence",
            ),
        ],
        "short",
        THIRD,
        mostly_nought=True,
    ),
    curves(
        "Batch size",
        "Messages claimed at a time. Always the batch size: there is a backlog.",
        quantiles("outbox_batch_messages"),
        "short",
        THIRD,
    ),
)

FAILURES: Final = (
    curves(
        "Refused by reason",
        "Messages per second that the broker did not take, or that no broker could.",
        [
            (
                f"sum by (reason) (rate(outbox_publish_failures_total{RATE}))",
                "{{reason}}",
            )
        ],
        "mps",
        THIRD,
        mostly_nought=True,
    ),
    curves(
        "Returned",
        "Messages per second that came back: no queue is bound for them.",
        [(f"sum(rate(outbox_returned_total{RATE}))", "returned")],
        "mps",
        THIRD,
    ),
    curves(
        "Dead letters",
        "Messages given up, until somebody retries or discards them.",
        [(f"sum(max by (outbox) (outbox_dead_messages{SERIES}))", "dead")],
        "short",
        THIRD,
    ),
)

EFFECTS: Final = (
    curves(
        "Execution time",
        "From a task's commit (or its eta) to its end at a worker, where workers leave receipts.",
        quantiles("outbox_execution_seconds"),
        "s",
        THIRD,
        every="30s",
    ),
    curves(
        "Missing",
        "Confirmed five minutes ago or longer, and finished by no worker, by where they are. "
        "What is gone wants outbox-relay audit, and replay --missing.",
        [
            (
                f"sum by (place) (max by (outbox, place) (outbox_missing_messages{SERIES}))",
                "{{place}}",
            )
        ],
        "short",
        THIRD,
        mostly_nought=True,
    ),
    curves(
        "Tasks that no worker knows",
        "Messages that wait, of a sample, whose task no live worker of their queue knows.",
        [
            (
                "sum by (task, queue) "
                f"(max by (outbox, task, queue) (outbox_unknown_task_messages{SERIES}))",
                "{{task}} for {{queue}}",
            )
        ],
        "short",
        THIRD,
    ),
)
