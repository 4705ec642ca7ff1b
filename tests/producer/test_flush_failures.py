"""When rows cannot be inserted the error says why, nothing commits, and the connection lives."""

import traceback
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from celery_outbox import OutboxError, OutboxNotReady, RowRefused
from tests.producer.conftest import Connection, Shop, Stored

BREAKAGES: dict[str, tuple[str, type[OutboxError], str]] = {
    "no schema": ("DROP SCHEMA outbox CASCADE", OutboxNotReady, "Run `outbox-migrate up`"),
    "no table": ("ALTER TABLE outbox.message RENAME TO m", OutboxNotReady, "outbox-migrate up"),
    "another version": (
        "ALTER TABLE outbox.message RENAME routing_key TO destination",
        OutboxNotReady,
        "of another version",
    ),
    "a constraint": (
        "ALTER TABLE outbox.message ADD CONSTRAINT nothing_today CHECK (task = 'x')",
        RowRefused,
        r"shop\.add: constraint nothing_today",
    ),
}


def end_of_block(connection: Connection) -> None:
    """Let the block insert what is left."""


def query(connection: Connection) -> None:
    """Run a statement."""
    connection.execute("SELECT 1")


def commit(connection: Connection) -> None:
    """Commit inside the block."""
    connection.commit()


def savepoint(connection: Connection) -> None:
    """Enter a nested transaction."""
    with connection.transaction():
        pass


def many(connection: Connection) -> None:
    """Enter pipeline mode, as executemany() does."""
    connection.cursor().executemany("SELECT %s", [(1,), (2,)])


OPERATIONS = [end_of_block, query, commit, savepoint, many]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("case", BREAKAGES)
def test_says_why(
    shop: Shop,
    connection: Connection,
    database: str,
    case: str,
    operation: Callable[[Connection], None],
) -> None:
    """Whichever operation comes next raises the error, and nothing is committed."""
    breakage, error, message = BREAKAGES[case]
    connection.execute(breakage.encode())
    connection.commit()

    def send() -> None:
        with shop.app.outbox.using(connection):
            connection.execute("CREATE TABLE effect ()")
            shop.add.delay("the payload", 0)
            shop.add.delay("the payload", 0)
            operation(connection)

    with pytest.raises(error, match=message) as caught:
        send()
    assert "the payload" not in "".join(traceback.format_exception(caught.value))
    connection.close()
    with psycopg.connect(database) as another:
        assert another.execute("SELECT to_regclass('effect')").fetchone() == (None,)


@pytest.mark.parametrize("case", BREAKAGES)
def test_in_nested_transactions(shop: Shop, connection: Connection, case: str) -> None:
    """The error passes through psycopg's own blocks and leaves the connection usable."""
    breakage, error, message = BREAKAGES[case]
    connection.execute(breakage.encode())
    connection.commit()

    def send() -> None:
        with (
            connection.transaction(),
            shop.app.outbox.using(connection),
            connection.transaction(),
        ):
            shop.add.delay(1, 0)

    for _ in range(2):
        with pytest.raises(error, match=message):
            send()
        assert connection.info.transaction_status == TransactionStatus.IDLE
    with connection.transaction():
        connection.execute("SELECT 1")


def test_an_error_is_not_hidden(shop: Shop, connection: Connection) -> None:
    """Where the block already failed, that error is the one that is raised."""
    connection.execute("DROP SCHEMA outbox CASCADE")
    connection.commit()

    def fail() -> None:
        with shop.app.outbox.using(connection):
            shop.add.delay(1, 0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert connection.info.transaction_status == TransactionStatus.INERROR


def test_errors_a_caller_retries_are_left_alone(
    shop: Shop, database: str, connection: Connection
) -> None:
    """A lock timeout, like a serialisation failure, stays what psycopg makes of it."""
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE outbox.message")
        connection.execute("SET LOCAL lock_timeout = '10ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable), shop.app.outbox.using(connection):
            shop.add.delay(1, 0)


def test_a_failure_on_this_side_cannot_commit(
    shop: Shop, connection: Connection, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server never learns of the failure the connection is closed, so nothing commits."""

    def broken(*_: Any) -> Any:
        raise UnicodeEncodeError("latin-1", "", 0, 1, "no such letter")

    monkeypatch.setattr("celery_outbox.statements.commands.insert", broken)

    def send() -> None:
        with shop.app.outbox.using(connection):
            connection.execute("CREATE TABLE effect ()")
            shop.add.delay(1, 0)
            connection.commit()

    with pytest.raises(UnicodeEncodeError):
        send()
    assert connection.closed
    assert stored.rows() == []


def test_what_psycopg_is_relied_on_for(connection: Connection) -> None:
    """Every operation passes the connection's `wait`; the semi-private parts used are there."""
    seen: list[str] = []
    wait = connection.wait

    def spy(operation: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(operation.__name__)
        return wait(operation, *args, **kwargs)

    vars(connection)["wait"] = spy
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    with connection.pipeline():
        pass
    connection.commit()
    connection.rollback()

    assert len(seen) >= 9
    assert hasattr(connection, "_pipeline")
    assert callable(psycopg.Cursor(connection)._execute_gen)
