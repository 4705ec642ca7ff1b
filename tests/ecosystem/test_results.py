"""django-celery-results: results of what the outbox sent, and chords that roll back as a whole."""

from importlib import import_module
from typing import Any

import pytest
from celery import chord
from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types

from tests.ecosystem import sites
from tests.ecosystem.conftest import Stored
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.waiting import wait_until

SECONDS = 60

sites.set_up("django_celery_results", results="django-db")


@pytest.fixture
def models(django_database: str) -> Any:
    """The package's models, with their tables."""
    sites.migrate()
    return import_module("django_celery_results.models")


@pytest.fixture
def shop() -> Any:
    """The project's tasks."""
    return import_module("tests.ecosystem.site_app")


def test_a_chord_rolls_back_with_its_counter(models: Any, shop: Any, stored: Stored) -> None:
    """Both are rows of the same transaction."""
    with transaction.atomic():
        chord([shop.add.s(1, 1), shop.add.s(2, 2)])(shop.total.s())
        assert models.ChordCounter.objects.count() == 1
        transaction.set_rollback(True)

    assert models.ChordCounter.objects.count() == 0
    assert stored() == []


def test_a_chord_runs(
    models: Any,
    shop: Any,
    database: str,
    valkey_url: str,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """Its body is sent by a worker, through the outbox, when the last of its header has ended."""
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=valkey_url)
    celery_worker("tests.ecosystem.site_app", DATABASE_URL=database, BROKER_URL=valkey_url)
    with transaction.atomic():
        result = chord([shop.add.s(1, 1), shop.add.s(2, 2)])(shop.total.s())

    def states() -> list[tuple[str, str]]:
        found = models.TaskResult.objects.filter(task_id=result.id)
        return list(found.values_list("status", "result"))

    wait_until(lambda: states() == [("SUCCESS", "6")], SECONDS, "the chord's body")
