"""django-celery-beat: what is due is a row; a one-off entry is used up though its send failed."""

from importlib import import_module
from typing import Any

import pytest

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


def test_a_one_off_entry_is_used_up_though_its_send_failed(
    program: ProgramFactory, models: Any, database: str, stored: Stored
) -> None:
    """As with a broker that is down, without an outbox. To enable it again is up to somebody."""
    every, _ = models.IntervalSchedule.objects.get_or_create(every=1, period="seconds")
    entry = models.PeriodicTask.objects.create(
        name="once", task="shop.add", args="[1, 2]", interval=every, one_off=True
    )
    beat = program(*BEAT, DATABASE_URL=database, OUTBOX_SCHEMA="nowhere")
    beat.wait_for_output("nowhere", SECONDS)

    def enabled() -> bool:
        entry.refresh_from_db()
        return bool(entry.enabled)

    wait_until(lambda: not enabled(), SECONDS, "the entry to be disabled")
    assert stored() == []
