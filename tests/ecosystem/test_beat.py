"""django-celery-beat: what is due is a row; an outage of the outbox uses up no run."""

from datetime import timedelta
from importlib import import_module
from typing import Any

import psycopg
import pytest
from django.utils import timezone  # type: ignore[import-untyped]  # Django ships no types

from tests.ecosystem import sites
from tests.ecosystem.conftest import ProgramFactory, Stored
from tests.fixtures.waiting import wait_until

SECONDS = 60
BEAT = (
    "celery", "-A", "tests.ecosystem.site_app", "beat", "--max-interval=1", "--pidfile=",
    "--scheduler=django_celery_beat.schedulers:DatabaseScheduler",
)  # fmt: skip

sites.set_up("django_celery_beat")


@pytest.fixture
def models(django_database: str) -> Any:
    """The package's models, with their tables."""
    sites.migrate()
    return import_module("django_celery_beat.models")


def test_what_is_due_is_a_row(
    program: ProgramFactory, models: Any, database: str, stored: Stored
) -> None:
    """Every run of an entry of the database, the broker being away."""
    every, _ = models.IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    models.PeriodicTask.objects.create(name="add", task="shop.add", args="[1, 2]", interval=every)
    program(*BEAT, DATABASE_URL=database)

    wait_until(lambda: len(stored()) >= 2, SECONDS, "two runs")
    assert {task for task, _ in stored()} == {"shop.add"}


def test_an_outage_uses_up_no_run(
    program: ProgramFactory, models: Any, database: str, stored: Stored
) -> None:
    """Daily entries and those that run once are sent when the outbox is back."""
    every, _ = models.IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    day, _ = models.IntervalSchedule.objects.get_or_create(every=1, period="days")
    moment, _ = models.ClockedSchedule.objects.get_or_create(clocked_time=timezone.now())
    yesterday = timezone.now() - timedelta(days=2)
    entries = {
        "once": {"interval": every, "one_off": True},
        "clocked": {"clocked": moment, "one_off": True},
        "daily": {"interval": day, "last_run_at": yesterday},
    }
    for name, fields in entries.items():
        models.PeriodicTask.objects.create(name=name, task=f"shop.{name}", **fields)

    def runs() -> dict[str, int]:
        found = models.PeriodicTask.objects.filter(name__in=entries)
        return {each.name: each.total_run_count for each in found if each.enabled}

    rename(database, "outbox", "elsewhere")
    beat = program(*BEAT, DATABASE_URL=database)
    wait_until(lambda: beat.output().count("Message Error") > 1, SECONDS, "a second attempt")
    assert runs() == {"once": 0, "clocked": 0, "daily": 0}
    rename(database, "elsewhere", "outbox")

    wait_until(lambda: len(stored()) == 3, SECONDS, "every entry")
    wait_until(lambda: list(runs()) == ["daily"], SECONDS, "those that run once to be disabled")
    assert sorted(task for task, _ in stored()) == ["shop.clocked", "shop.daily", "shop.once"]


def rename(database: str, before: str, after: str) -> None:
    """Put the outbox's tables out of reach, or bring them back."""
    with psycopg.connect(database) as connection:
        connection.execute(f"ALTER SCHEMA {before} RENAME TO {after}".encode())
