"""psycopg2 connections take tasks: each is inserted at once, in its place among the statements."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection
from psycopg2.extras import RealDictCursor, wait_select

from celery_outbox import OutboxNotReady, UnusableTarget
from tests.producer.conftest import Shop, Stored


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """A psycopg2 connection whose cursors return dictionaries."""
    connection = psycopg2.connect(database, cursor_factory=RealDictCursor)
    yield connection
    connection.close()


def execute(connection: Connection, command: str) -> None:
    """Run a statement."""
    with connection.cursor() as cursor:
        cursor.execute(command)


def test_commits_and_rolls_back_with_the_data(
    shop: Shop, connection: Connection, stored: Stored
) -> None:
    """Rows share the fate of the statements around them, savepoints included."""
    with connection, shop.app.outbox.using(connection) as joined:
        assert joined is connection
        shop.add.apply_async((1, 0), countdown=60, expires=90, headers={"a": "100%s"})
        execute(connection, "SAVEPOINT a")
        shop.add.delay(2, 0)
        execute(connection, "ROLLBACK TO a")
        shop.add.delay("\N{SNOWMAN}", 0)
    with suppress(KeyError), connection, shop.app.outbox.using(connection):
        shop.add.delay(4, 0)
        raise KeyError

    assert stored.args() == [1, "\N{SNOWMAN}"]
    assert stored.rows()[0].headers["a"] == "100%s"


def test_transaction_in_autocommit_mode(shop: Shop, connection: Connection, stored: Stored) -> None:
    """It brings the transaction that is missing; `using` joins one that was begun in SQL."""
    outbox = shop.app.outbox
    connection.autocommit = True
    with outbox.transaction(connection):
        shop.add.delay(1, 0)
        with suppress(KeyError), outbox.transaction(connection):
            shop.add.delay(2, 0)
            raise KeyError
        assert stored.rows() == []
    assert stored.args() == [1]
    with suppress(KeyError), outbox.transaction(connection):
        shop.add.delay(3, 0)
        raise KeyError
    execute(connection, "BEGIN")
    with outbox.using(connection):
        shop.add.delay(4, 0)
    execute(connection, "COMMIT")

    assert stored.args() == [1, 4]


def test_threads(shop: Shop, connection: Connection, stored: Stored) -> None:
    """What threads send at the same moment on one connection is committed with it."""
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, 200, 4):
            [
                *pool.map(
                    lambda number: shop.add.apply_async((number, 0), outbox=connection),
                    range(start, start + 4),
                )
            ]
            connection.commit()

    assert sorted(stored.args()) == [*range(200)]


@pytest.mark.parametrize("autocommit", [False, True])
def test_an_error_is_not_hidden(
    shop: Shop, connection: Connection, database: str, stored: Stored, autocommit: bool
) -> None:
    """Where not even the rollback can be sent, the error of the block is the one that is raised."""
    connection.autocommit = autocommit

    def fail() -> None:
        with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            with shop.app.outbox.transaction(connection):
                with psycopg2.connect(database) as other:
                    pid = connection.info.backend_pid
                    execute(other, f"SELECT pg_terminate_backend({pid}, 30000)")
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert connection.closed
    assert stored.rows() == []


def test_refuses_asynchronous_connections(shop: Shop, database: str) -> None:
    """psycopg2's own asynchronous mode knows no transactions."""
    connection = psycopg2.connect(database, async_=True)
    wait_select(connection)
    with pytest.raises(UnusableTarget, match="asynchronous mode"):
        shop.add.apply_async((1, 0), outbox=connection)
    connection.close()


def test_refuses(shop: Shop, connection: Connection) -> None:
    """A failed transaction, autocommit, a closed connection and a cursor are refused."""
    using = shop.app.outbox.using
    with pytest.raises(psycopg2.Error):
        execute(connection, "SELECT 1/0")
    with pytest.raises(UnusableTarget, match="rolled back"), using(connection):
        pass
    connection.rollback()
    connection.autocommit = True
    with pytest.raises(UnusableTarget, match="autocommit"), using(connection):
        pass
    with pytest.raises(UnusableTarget, match="itself"):
        using(connection.cursor())
    connection.close()
    with pytest.raises(UnusableTarget, match="closed"), using(connection):
        pass


def test_says_why(shop: Shop, connection: Connection) -> None:
    """A missing table is reported with the command that creates it."""
    execute(connection, "DROP SCHEMA outbox CASCADE")
    connection.commit()
    with (
        pytest.raises(OutboxNotReady, match="outbox-migrate up"),
        shop.app.outbox.using(connection),
    ):
        shop.add.delay(1, 0)
