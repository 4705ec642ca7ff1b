"""Django's own pool of connections: what is sent stays in its transaction, whoever has it next."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction  # type: ignore[import-untyped]  # no types

from celery_outbox import OutboxCelery
from tests.ecosystem import sites
from tests.ecosystem.conftest import Stored
from tests.fixtures.django import database_settings, forget

sites.set_up()

app = OutboxCelery("shop")


@app.task(name="shop.bill")
def bill(number: int) -> None:
    """Send the invoice."""


@pytest.fixture
def pooled(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Django with one connection, which its threads take in turn."""
    entry = {**database_settings(database), "OPTIONS": {"pool": {"min_size": 1, "max_size": 1}}}
    configured = connections.configure_settings({"default": entry})
    monkeypatch.setitem(connections.settings, "default", configured["default"])
    forget("default")
    yield
    connections["default"].close()
    connections["default"].close_pool()
    forget("default")


def backend() -> int:
    """The Postgres process that serves this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def order(number: int, *, kept: bool) -> int:
    """Send a task in a transaction; give the connection back, as at the end of a request."""
    try:
        with transaction.atomic():
            process = backend()
            bill.delay(number)
            transaction.set_rollback(not kept)
        return process
    finally:
        connections.close_all()


def test_what_rolls_back_is_not_stored_by_the_next(pooled: None, stored: Stored) -> None:
    """Threads use the same connection one after another."""
    with ThreadPoolExecutor(4) as threads:
        ordered = threads.map(lambda n: order(n, kept=n % 2 == 0), range(20))
        assert len(set(ordered)) == 1

    assert len(stored()) == 10


def test_a_send_without_a_transaction(pooled: None, stored: Stored) -> None:
    """It is durable when `delay` returns, as any statement of Django's."""
    bill.delay(1)

    assert [task for task, _ in stored()] == ["shop.bill"]


def test_a_loop_of_sends_takes_one_connection(pooled: Any, stored: Stored) -> None:
    """With a pool of one, nothing waits for a second."""
    with transaction.atomic():
        app.outbox.send_many(bill, ((n,) for n in range(2_000)))
        bill.delay(1)

    assert len(stored()) == 2_001
