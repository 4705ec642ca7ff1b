"""Keys from SQL: order and deduplication for whoever writes rows without our libraries."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from outbox_migrations import grant
from tests.fixtures.rows import insert_rows, states

Connection = psycopg.Connection[Any]


@pytest.fixture
def session(emptied_database: str) -> Any:
    """A session on the emptied database, committing each statement."""
    with psycopg.connect(emptied_database, autocommit=True) as connection:
        yield connection


def value(connection: Connection, query: str, *parameters: object) -> Any:
    """The one value a query returns."""
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def test_enqueue_takes_both_keys(session: Connection, emptied_database: str) -> None:
    """A second pending task with the dedup_key is not stored; its id is the first one's."""
    query = "SELECT outbox.enqueue('shop.bill', ordering_key => 'o', dedup_key => 'd')"
    first = value(session, query)

    assert value(session, query) == first
    assert states(emptied_database)["pending"] == 1
    assert value(session, "SELECT ordering_key FROM outbox.message") == "o"
    assert value(session, "SELECT key FROM outbox.lane") == "o"


@pytest.mark.parametrize("key", ["", "é" * 100 + "e"])
def test_a_dedup_key_is_neither_empty_nor_long(session: Connection, key: str) -> None:
    """200 bytes, for an index's sake."""
    with pytest.raises(errors.CheckViolation, match="dedup_key_is_short"):
        value(session, "SELECT outbox.enqueue('shop.bill', dedup_key => %s)", key)


def test_a_key_claimed_and_not_used_is_free(session: Connection) -> None:
    """Nobody is bound by a claim whose message was never inserted."""
    assert value(session, "SELECT outbox.claim_dedup('d', 'one')") is None
    assert value(session, "SELECT outbox.claim_dedup('d', 'two')") is None


def test_old_keys_are_forgotten(session: Connection, emptied_database: str) -> None:
    """Those whose message is no longer pending; the others are kept, and looked at again later."""
    for key in ("sent", "waiting"):
        session.execute("SELECT outbox.enqueue('shop.bill', dedup_key => %s)", [key])
    session.execute(
        "WITH done AS (DELETE FROM outbox.ready WHERE id = (SELECT min(id) FROM outbox.ready)"
        " RETURNING id, slot) INSERT INTO outbox.receipt (slot, span, ids)"
        " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done"
    )
    session.execute("UPDATE outbox.dedup SET looked_at = now() - interval '2 hours'")

    session.execute("SELECT outbox.purge('7 days')")

    assert session.execute("SELECT key FROM outbox.dedup").fetchall() == [("waiting",)]
    assert states(emptied_database)["pending"] == 1


def test_a_producer_needs_no_further_right(database: str) -> None:
    """What its role may do suffices for both keys, and shows it nothing of others."""
    grant(database)
    with psycopg.connect(database) as connection:
        connection.execute("SET ROLE outbox_producer")
        insert_rows(connection, 2, ordering_key="a")
        assert value(connection, "SELECT outbox.claim_dedup('d', 'one')") is None
        connection.execute("SELECT outbox.enqueue('shop.bill', dedup_key => 'e')")
        for table in ("lane", "lane_news", "dedup"):
            with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
                connection.execute(f"SELECT FROM outbox.{table}".encode())
        with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SELECT outbox.claim_lanes(0, 1, 1, 1)")
