"""What every database owes a message for which no transaction was named, asked of each.

What is particular to one is in a file of its own.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types

from celery_outbox import OutboxNotReady, RowRefused
from celery_outbox.stores.database import Store
from celery_outbox.stores.django import DjangoStore
from celery_outbox.stores.standalone import Standalone
from tests.producer.conftest import Stored
from tests.producer.messages import message

STORES: dict[str, Callable[[str], Store]] = {
    "of a URL": lambda url: Standalone(url, "outbox"),
    "of Django": lambda _: DjangoStore("default", "outbox"),
}
WAYS = ["store", "store_apart"]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, database: str) -> Store:
    """Each in turn."""
    if request.param == "of Django":
        request.getfixturevalue("django_database")
    return STORES[request.param](database)


@pytest.mark.parametrize("way", WAYS)
def test_durable_on_return(store: Store, stored: Stored, way: str) -> None:
    """Where nothing is in progress the row is there when the call returns, under its own id."""
    outcome = getattr(store, way)(message("a"))

    assert outcome.pending_id == "a"
    assert [row.message_id for row in stored.rows()] == ["a"]


@pytest.mark.parametrize("way", WAYS)
def test_one_with_the_key_is_pending(store: Store, stored: Stored, way: str) -> None:
    """The second is not stored, and its outcome names the first."""
    outcomes = [getattr(store, way)(message(each, "key")) for each in ("a", "b")]

    assert [outcome.pending_id for outcome in outcomes] == ["a", "a"]
    assert [row.message_id for row in stored.rows()] == ["a"]


@pytest.mark.usefixtures("django_database")
def test_apart_from_djangos_own_transaction(stored: Stored) -> None:
    """Of Django's connection `store` shares the transaction, and `store_apart` does not."""
    store = DjangoStore("default", "outbox")
    with suppress(KeyError), transaction.atomic():
        store.store(message("with"))
        store.store_apart(message("apart", "key"))
        raise KeyError

    assert [row.message_id for row in stored.rows()] == ["apart"]
    assert connections["default"].get_autocommit()


@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_says_why(store: Store, stored: Stored, database: str, way: str) -> None:
    """The constraint is named, the payload is not; the next message is stored."""
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (id < 0)")
    with pytest.raises(RowRefused, match="nothing"):
        getattr(store, way)(message("a"))
    with psycopg.connect(database) as connection:
        connection.execute("ALTER TABLE outbox.message DROP CONSTRAINT nothing")
    getattr(store, way)(message("b"))

    assert [row.message_id for row in stored.rows()] == ["b"]


@pytest.mark.parametrize("way", WAYS)
def test_a_database_without_an_outbox(store: Store, database: str, way: str) -> None:
    """The error says what to run."""
    with psycopg.connect(database) as connection:
        connection.execute("DROP SCHEMA outbox CASCADE")

    with pytest.raises(OutboxNotReady, match="outbox-migrate up"):
        getattr(store, way)(message("a"))


def test_threads(store: Store, stored: Stored) -> None:
    """Threads share it, and nothing is lost."""

    def send(number: int) -> Any:
        try:
            return store.store(message(str(number)))
        finally:
            connections.close_all()  # of this thread

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(send, range(40)))

    assert sorted(int(row.message_id) for row in stored.rows()) == list(range(40))
