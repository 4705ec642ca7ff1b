"""What every database owes a message for which no transaction was named, asked of each.

What is particular to one is in a file of its own.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import psycopg
import pytest
from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types

from celery_outbox import OutboxNotReady, RowRefused
from celery_outbox.statements.insert import insert_once
from celery_outbox.stores.database import Store
from celery_outbox.stores.django import DjangoStore
from celery_outbox.stores.standalone import Standalone
from tests.fixtures.waiting import wait_until
from tests.producer.conftest import Stored
from tests.producer.messages import message

STORES: dict[str, Callable[[str], Store]] = {
    "of a URL": lambda url: Standalone(url, "outbox"),
    "of Django": lambda _: DjangoStore("default", "outbox"),
}
WAYS = ["store", "store_apart"]
#: Sessions that wait for the end of another attempt.
WAITING: Final = (
    "SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
)


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


def test_once_although_an_attempt_has_stored_it(store: Store, stored: Stored) -> None:
    """An attempt whose answer was lost counts; other messages with its id, and old ones, do not."""
    store.store_once(message("a"), 0)
    assert store.store_once(message("a"), 60).pending_id == "a"
    store.store_once(message("b"), 60)
    assert [row.message_id for row in stored.rows()] == ["a", "b"]

    store.store_once(replace(message("a"), body=b"other"), 60)
    store.store_once(replace(message("a"), headers='{"retries": 1}'), 60)
    store.store_once(replace(message("a"), ordering_key="k"), 0)
    assert [row.message_id for row in stored.rows()] == ["a", "b", "a", "a", "a"]
    assert stored.rows()[-1].ordering_key == "k"


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_once_while_an_attempt_is_at_it(
    store: Store, stored: Stored, database: str, end: str, isolation: str
) -> None:
    """It is waited for, whatever level the login has by default: the message is there once."""
    with psycopg.connect(database, autocommit=True) as owner:
        name = owner.info.dbname
        owner.execute(
            f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = '{isolation}'".encode()
        )

    def again() -> None:
        try:
            store.store_once(message("a"), 60)
        finally:
            if isinstance(store, DjangoStore):
                connections.close_all()

    text, parameters = insert_once("outbox", message("a"), 0)
    with psycopg.connect(database) as earlier, ThreadPoolExecutor(1) as beside:
        earlier.execute(text.encode(), parameters)
        attempt = beside.submit(again)
        wait_until(lambda: len(stored.fetch(WAITING)) == 1, 10, "it waits")
        getattr(earlier, end)()
        attempt.result(10)

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
