"""django-structlog: the request's id is stored with the task, and the worker's log continues it."""

from typing import Any

import structlog
from django.test import Client  # type: ignore[import-untyped]  # Django ships no types

from tests.ecosystem import sites
from tests.ecosystem.conftest import Stored
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.waiting import wait_until

SECONDS = 60
SHOP = "tests.ecosystem.structlog_shop"

sites.set_up(
    "django_structlog",
    middleware="django_structlog.middlewares.RequestMiddleware",
    urls=SHOP,
)


def test_the_request_goes_on_in_the_worker(
    django_database: str,
    database: str,
    valkey_url: str,
    stored: Stored,
    effects: Any,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """Its id is among the headers of the row, and bound where the task runs."""
    Client().post("/orders/", headers={"X-Request-ID": "request-7"})
    ((task, headers),) = stored()
    assert task == "shop.note"
    assert headers["__django_structlog__"]["request_id"] == "request-7"

    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=valkey_url)
    celery_worker(SHOP, DATABASE_URL=database, BROKER_URL=valkey_url)
    wait_until(lambda: effects() == ["request-7"], SECONDS, "the task")


def test_enqueued_is_said_of_what_rolls_back(django_database: str, stored: Stored) -> None:
    """The line tells that a row was made, not that it was committed."""
    with structlog.testing.capture_logs() as logs:
        Client().post("/orders/?reject")

    assert [each["event"] for each in logs].count("task_enqueued") == 1
    assert stored() == []
