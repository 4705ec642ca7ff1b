"""celery-redbeat: what is due is a row though the broker is down; a failed send is a run."""

import os
from typing import Any

from redbeat import RedBeatSchedulerEntry

from celery_outbox import OutboxCelery
from tests.ecosystem.conftest import ProgramFactory, Stored
from tests.fixtures.waiting import wait_until

SECONDS = 60
BEAT = ("beat", "--scheduler=redbeat.RedBeatScheduler", "--max-interval=1", "--pidfile=")

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"), set_as_current=False)
app.conf.redbeat_redis_url = os.environ.get("REDBEAT_URL", "redis://127.0.0.1:1/0")
app.conf.beat_schedule = {"count": {"task": "shop.count", "schedule": 1.0}}


@app.task(name="shop.count")
def count() -> None:
    """Count the stock."""


def test_what_is_due_is_a_row(
    program: ProgramFactory, database: str, valkey_url: str, down: str, stored: Stored
) -> None:
    """Every run of a schedule in Redis, the broker being away."""
    program(
        "celery", "-A", "tests.ecosystem.test_redbeat", *BEAT,
        OUTBOX_DATABASE_URL=database, REDBEAT_URL=valkey_url, BROKER_URL=down,
    )  # fmt: skip

    wait_until(lambda: len(stored()) >= 2, SECONDS, "two runs")
    assert {task for task, _ in stored()} == {"shop.count"}


def test_a_send_that_fails_counts_as_a_run(
    program: ProgramFactory, database: str, valkey_url: str, down: str, stored: Stored
) -> None:
    """As with a broker that is down, without an outbox: the scheduler goes on to the next."""
    beat = program(
        "celery", "-A", "tests.ecosystem.test_redbeat", *BEAT,
        OUTBOX_DATABASE_URL=database, OUTBOX_SCHEMA="nowhere",
        REDBEAT_URL=valkey_url, BROKER_URL=down,
    )  # fmt: skip
    beat.wait_for_output("nowhere", SECONDS)
    reader: Any = OutboxCelery("reader", set_as_current=False)
    reader.conf.redbeat_redis_url = valkey_url

    def runs() -> int:
        entry = RedBeatSchedulerEntry.from_key("redbeat:count", app=reader)
        return int(entry.total_run_count)

    wait_until(lambda: runs() >= 2, SECONDS, "two runs that failed")
    assert stored() == []
