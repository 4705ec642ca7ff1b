"""celery-redbeat: what is due is a row though the broker is down; an outage uses up no run."""

import os
from datetime import timedelta
from typing import Any

import psycopg
from celery.schedules import schedule
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


def test_an_outage_uses_up_no_run(
    program: ProgramFactory, database: str, valkey_url: str, down: str, stored: Stored
) -> None:
    """What is due is sent when the outbox is back, once, and counted then."""
    reader: Any = OutboxCelery("reader", set_as_current=False)
    reader.conf.redbeat_redis_url = valkey_url
    entry = RedBeatSchedulerEntry("daily", "shop.daily", schedule(86400), app=reader)
    entry.save()
    entry.reschedule(entry.default_now() - timedelta(days=2))

    def runs() -> int:
        return int(RedBeatSchedulerEntry.from_key(entry.key, app=reader).total_run_count)

    rename(database, "outbox", "elsewhere")
    beat = program(
        "celery", "-A", "tests.ecosystem.test_redbeat", *BEAT,
        OUTBOX_DATABASE_URL=database, REDBEAT_URL=valkey_url, BROKER_URL=down,
    )  # fmt: skip
    wait_until(lambda: beat.output().count("will be sent once") > 0, SECONDS, "the outage")
    assert runs() == 0
    rename(database, "elsewhere", "outbox")

    def daily() -> int:
        return [task for task, _ in stored()].count("shop.daily")

    wait_until(daily, SECONDS, "the daily entry")
    wait_until(lambda: len(stored()) > 3, SECONDS, "more runs of the other")
    assert (daily(), runs()) == (1, 1)


def rename(database: str, before: str, after: str) -> None:
    """Put the outbox's tables out of reach, or bring them back."""
    with psycopg.connect(database) as connection:
        connection.execute(f"ALTER SCHEMA {before} RENAME TO {after}".encode())
