"""`transaction` begins, commits and rolls back; within another transaction it is a savepoint."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from celery_outbox import RowRefused, UnusableTarget
from tests.producer.conftest import Connection, Shop, Stored
from tests.producer.drivers import ASYNCHRONOUS, SYNCHRONOUS, Driver, Talk, opened

#: Whoever hears of its notice can send while it runs.
FAILS = "DO $$ BEGIN RAISE NOTICE 'it fails'; RAISE division_by_zero; END $$"


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


def test_one_round_trip_for_insert_and_commit(
    shop: Shop, connection: Connection, stored: Stored, tmp_path: Path
) -> None:
    """BEGIN is one, and what follows another: two, where an INSERT by hand takes three."""
    with (tmp_path / "trace").open("w+") as trace:
        for number in range(3):
            with shop.app.outbox.transaction(connection):
                if number == 2:  # connected, and anything prepared that will be
                    connection.pgconn.trace(trace.fileno())
                shop.add.delay(number, 0)
        connection.pgconn.untrace()
        trace.seek(0)
        directions = [line.split("\t")[1] for line in trace if line.count("\t") >= 2]

    assert [direction for direction, _ in groupby(directions)] == ["F", "B"]
    assert stored.args() == [0, 1, 2]


def sending_after(shop: Shop, connection: Connection, *statements: LiteralString) -> None:
    """Run statements and send a task, in a transaction of its own."""
    with shop.app.outbox.transaction(connection):
        for statement in statements:
            connection.execute(statement)
        shop.add.delay(1, 0)


def test_an_insert_that_fails_beside_the_commit(
    shop: Shop, connection: Connection, database: str, stored: Stored
) -> None:
    """Nothing is committed, the error is the same as ever, and the connection can be used."""
    with psycopg.connect(database, autocommit=True) as other:
        other.execute("ALTER TABLE outbox.message ADD CONSTRAINT none_today CHECK (task = 'x')")
    with pytest.raises(RowRefused, match=r"shop\.add: constraint none_today"):
        sending_after(shop, connection, "CREATE TABLE business (n int)")

    assert connection.info.transaction_status is TransactionStatus.IDLE
    assert connection.execute("SELECT to_regclass('business')").fetchone() == (None,)
    connection.rollback()
    assert stored.rows() == []


def test_a_commit_that_fails_beside_the_insert(
    shop: Shop, connection: Connection, stored: Stored
) -> None:
    """The error is the commit's own."""
    connection.execute("CREATE TABLE twice (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    connection.commit()
    with pytest.raises(psycopg.errors.UniqueViolation, match="twice_n_key"):
        sending_after(shop, connection, "INSERT INTO twice VALUES (1), (1)")

    assert connection.info.transaction_status is TransactionStatus.IDLE
    assert stored.rows() == []


def test_a_connection_lost_at_the_commit(
    shop: Shop, connection: Connection, database: str, stored: Stored
) -> None:
    """It is an error of the driver, and nothing is stored."""

    def send() -> None:
        with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    with pytest.raises(psycopg.OperationalError):
        send()
    assert connection.closed
    assert stored.rows() == []


@pytest.mark.parametrize("refused", [False, True], ids=["stored", "refused"])
def test_another_thread_comes_before_the_commit(
    shop: Shop,
    connection: Connection,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    refused: bool,
) -> None:
    """Its statement is not taken for the COMMIT; what it makes fail, the block does not commit."""
    if refused:
        connection.execute("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (task = 'x')")
    connection.execute("CREATE TABLE effect (n int)")
    connection.commit()
    statements: list[Future[object]] = []
    commit = psycopg.Transaction.__exit__

    def commit_after_another(transaction: psycopg.Transaction, *error: Any) -> bool:
        with ThreadPoolExecutor(1) as pool:
            statements.append(pool.submit(connection.execute, "INSERT INTO effect VALUES (1)"))
        return commit(transaction, *error)

    monkeypatch.setattr(psycopg.Transaction, "__exit__", commit_after_another)
    with pytest.raises(UnusableTarget, match="failed") if refused else nullcontext():
        sending_after(shop, connection)

    (statement,) = statements
    assert isinstance(statement.exception(), RowRefused if refused else NoneType)
    assert connection.info.transaction_status is TransactionStatus.IDLE
    assert len(stored.rows()) == len(stored.fetch("SELECT FROM effect")) == (0 if refused else 1)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["with", "async with"])
def test_a_failure_nobody_told_of(
    shop: Shop, database: str, stored: Stored, asynchronous: bool
) -> None:
    """A COMMIT after an error that was swallowed rolls back: then the block does not end well."""

    def swallowing() -> None:
        with psycopg.connect(database) as connection, shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            with suppress(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")

    async def swallowing_there() -> None:
        opened = await psycopg.AsyncConnection.connect(database)
        async with opened as connection, shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            with suppress(psycopg.errors.DivisionByZero):
                await connection.execute("SELECT 1 / 0")

    with pytest.raises(UnusableTarget, match="its transaction has failed"):
        asyncio.run(swallowing_there()) if asynchronous else swallowing()
    assert stored.rows() == []


@pytest.mark.parametrize("driver", [SYNCHRONOUS[0], ASYNCHRONOUS[0]], ids=str)
def test_sent_as_a_statement_fails(
    shop: Shop, database: str, stored: Stored, driver: Driver
) -> None:
    """It rolls back with that, and is not left for the connection's next transaction."""

    async def failing(talk: Talk) -> None:
        async with talk.transaction(shop.app.outbox):
            with suppress(psycopg.errors.DivisionByZero):
                await talk.execute(FAILS)

    async def run() -> None:
        talk = await opened(driver, database)
        talk.target.add_notice_handler(lambda _: shop.add.apply_async((1, 0), outbox=talk.target))
        with pytest.raises(UnusableTarget, match="its transaction has failed"):
            await failing(talk)
        async with talk.transaction(shop.app.outbox):
            shop.add.delay(2, 0)
        await talk.close()

    asyncio.run(run())
    assert stored.args() == [2]


def test_a_connection_closed_by_another_thread(
    shop: Shop, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Psycopg ends its block without a word then; ours says that something was not stored."""
    connection = psycopg.connect(database)
    commit = psycopg.Transaction.__exit__

    def commit_after_another(transaction: psycopg.Transaction, *error: Any) -> bool:
        connection.close()
        return commit(transaction, *error)

    monkeypatch.setattr(psycopg.Transaction, "__exit__", commit_after_another)
    with pytest.raises(UnusableTarget, match="closed before they were stored"):
        sending_after(shop, connection)
