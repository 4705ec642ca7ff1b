"""`transaction` begins, commits and rolls back; within another transaction it is a savepoint."""

from contextlib import suppress

import psycopg
import pytest

from tests.producer.conftest import Connection, Shop, Stored


def test_commits(shop: Shop, connection: Connection, stored: Stored) -> None:
    """The end of the block commits."""
    with shop.app.outbox.transaction(connection) as joined:
        assert joined is connection
        shop.add.delay(1, 0)
        assert stored.rows() == []

    assert stored.args() == [1]


def test_rolls_back(shop: Shop, connection: Connection, stored: Stored) -> None:
    """An error rolls back, and passes."""

    def fail() -> None:
        with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    connection.commit()

    assert stored.rows() == []


def test_rollback_exception(shop: Shop, connection: Connection, stored: Stored) -> None:
    """The way psycopg has to leave a block without an error keeps its meaning."""
    with shop.app.outbox.transaction(connection):
        shop.add.delay(1, 0)
        raise psycopg.Rollback

    assert stored.rows() == []


def test_is_a_savepoint_when_nested(shop: Shop, connection: Connection, stored: Stored) -> None:
    """An inner block that fails takes back its own rows only."""
    with shop.app.outbox.transaction(connection):
        shop.add.delay(1, 0)
        with suppress(KeyError), shop.app.outbox.transaction(connection):
            shop.add.delay(2, 0)
            raise KeyError
        with shop.app.outbox.transaction(connection):
            shop.add.delay(3, 0)
        assert stored.rows() == []

    assert stored.args() == [1, 3]


def test_autocommit_is_fine(shop: Shop, database: str, stored: Stored) -> None:
    """It brings the transaction that a connection in autocommit mode lacks."""
    with psycopg.connect(database, autocommit=True) as connection:
        with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            assert stored.rows() == []

        assert stored.args() == [1]


def test_nothing_is_inserted_to_be_rolled_back(shop: Shop, connection: Connection) -> None:
    """What was sent before an error never reaches the server."""
    with suppress(KeyError), shop.app.outbox.transaction(connection):
        for number in range(10):
            shop.add.delay(number, 0)
        raise KeyError
    with connection:
        connection.execute(
            "INSERT INTO outbox.message (message_id, task, body, content_type,"
            " content_encoding) VALUES ('m', 't', '', 'x', 'y')"
        )
        row = connection.execute("SELECT id FROM outbox.message").fetchone()

    assert row == (1,)  # no id was used up
