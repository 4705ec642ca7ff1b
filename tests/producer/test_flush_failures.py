"""When rows cannot be inserted the error says why, nothing commits, and the connection lives."""

import traceback
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from psycopg.pq import TransactionStatus
from psycopg.types.string import BytesBinaryDumper

from celery_outbox import OutboxError, OutboxNotReady, RowRefused
from outbox_migrations import upgrade
from tests.producer.conftest import Connection, Shop, Stored, make_shop

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


def refusing(error: BaseException) -> type[BytesBinaryDumper]:
    """Return what adapts not every body: an error that the server never learns of."""

    class Refusing(BytesBinaryDumper):
        def dump(self, obj: Any) -> Any:
            if b"refused" in obj:
                raise error
            return super().dump(obj)

    return Refusing


ON_THIS_SIDE = [psycopg.DataError(), UnicodeError(), SoftTimeLimitExceeded(), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ON_THIS_SIDE, ids=repr)
@pytest.mark.parametrize("way", ["using", "transaction", "outbox="])
@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "dedup_key"])
def test_a_failure_on_this_side_cannot_commit(
    shop: Shop, connection: Connection, stored: Stored, way: str, keyed: bool, error: BaseException
) -> None:
    """Where the server never learns of the failure the connection is closed, so nothing commits."""
    connection.adapters.register_dumper(bytes, refusing(error))
    connection.execute("CREATE TABLE effect (n int)")
    connection.commit()
    options: Any = {"dedup_key": "a"} if keyed else {}
    if way == "outbox=":
        options["outbox"] = connection

    def send() -> None:
        begin = getattr(shop.app.outbox, way.replace("outbox=", "using"))
        with begin(connection) if way != "outbox=" else nullcontext():
            connection.execute("INSERT INTO effect VALUES (1)")
            shop.add.apply_async(("refused", 0), **options)

    with pytest.raises(type(error)) as caught:
        send()
    assert caught.value is error
    assert connection.closed
    assert stored.rows() == stored.fetch("SELECT * FROM effect") == []


def test_a_failure_on_this_side_for_another_outbox(
    shop: Shop, connection: Connection, database: str, stored: Stored
) -> None:
    """What was inserted for one outbox is not committed without what goes to the other."""
    upgrade(database, schema="mine", component="outbox")
    mine = make_shop(None, outbox_schema="mine")

    def send() -> None:
        with shop.app.outbox.transaction(connection):
            mine.add.apply_async((1, 0), outbox=connection)
            shop.add.delay(1, 0)
            shop.add.delay("refused", 0)

    connection.adapters.register_dumper(bytes, refusing(psycopg.DataError()))
    with pytest.raises(psycopg.DataError):
        send()
    assert connection.closed
    assert stored.args() == stored.args("mine") == []


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
