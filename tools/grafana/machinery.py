"""Panels about what carries messages: the broker, the database, the relays and their tables."""

from typing import Final

from grafana.panels import JOB, RATE, SERIES, THIRD, YES_NO, curves

HEALTH: Final = (
    curves(
        "Broker connected",
        "1 while the relay is connected to the broker.",
        [(f"min by (instance) (outbox_broker_up{SERIES})", "{{instance}}")],
        YES_NO,
        THIRD,
        most=1,
    ),
    curves(
        "Broker blocked",
        "1 while the broker takes nothing: a memory or disk alarm, or a full Redis.",
        [(f"max by (instance) (outbox_broker_blocked{SERIES})", "{{instance}}")],
        YES_NO,
        THIRD,
        most=1,
    ),
    curves(
        "Database connected",
        "1 while the relay is connected to Postgres.",
        [(f"min by (instance) (outbox_database_up{SERIES})", "{{instance}}")],
        YES_NO,
        THIRD,
        most=1,
    ),
)

RELAYS: Final = (
    curves(
        "Furthest behind",
        "Age of the oldest message that is due, not confirmed, and not held on purpose; the ten "
        "oldest outboxes.",
        [
            (
                f"topk(10, max by (job, outbox) (outbox_oldest_pending_age_seconds{SERIES}))",
                "{{job}} {{outbox}}",
            )
        ],
        "s",
        THIRD,
    ),
    curves(
        "Published by relay",
        "Confirmed messages per second, by relay.",
        [(f"sum by (instance) (rate(outbox_confirm_seconds_count{RATE}))", "{{instance}}")],
        "mps",
        THIRD,
    ),
    curves(
        "Relays by version",
        "Relays that run, by version: two versions only during an upgrade.",
        [(f"count by (version) (outbox_build_info{JOB})", "{{version}}")],
        "short",
        THIRD,
    ),
)

POSTGRES: Final = (
    curves(
        "Size of the hot tables",
        "They should be as large as the backlog. Large without a backlog is bloat.",
        [
            (
                f"sum by (table) (max by (outbox, table) (outbox_work_table_bytes{SERIES}))",
                "{{table}}",
            )
        ],
        "bytes",
        THIRD,
    ),
    curves(
        "Rows to be vacuumed",
        "Dead rows in the hot tables: a saw-tooth is right, a steady climb is not.",
        [
            (
                f"sum by (table) (max by (outbox, table) (outbox_work_table_dead_tuples{SERIES}))",
                "{{table}}",
            )
        ],
        "short",
        THIRD,
    ),
    curves(
        "Horizon",
        "How long an open transaction has kept vacuum from removing dead rows. Without "
        "pg_read_all_stats the relay cannot see it and the panel stays empty.",
        [(f"max(outbox_horizon_age_seconds{SERIES})", "oldest transaction")],
        "dtdhms",
        THIRD,
    ),
)
