"""What the database does to a task is waited out; what a task or its author does is an error.

Every SQLSTATE here comes from a real server; the table they are looked up in is `VERDICTS`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.exceptions import Reject
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker

from celery_inbox import UnusableConnection, idempotent
from celery_inbox.transient import VERDICTS, Verdict, judge, sqlstate
from servers import Postgres
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.waiting import wait_until
from tests.worker.ledger import Deliver, Ledger
from tests.worker.libraries import Library

CHARGED = "INSERT INTO effect (note) VALUES ('charged')"
SECONDS = 20.0

Interrupt = Callable[[psycopg.Connection[Any]], object]


@pytest.mark.parametrize("state", [*VERDICTS, "57P04", "53400", "22012", "25006"])
def test_the_table(ledger: Ledger, state: str) -> None:
    """As a server reports it: a class of two characters stands for all of its states."""
    known = f"{state}006" if len(state) == 2 else state
    with psycopg.connect(ledger.dsn) as connection, pytest.raises(psycopg.Error) as raised:
        connection.execute(
            SQL("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = {}; END $$").format(known)
        )

    assert sqlstate(raised.value) == known
    assert judge(raised.value) is VERDICTS.get(state, Verdict.MISTAKE)


def told_to_go(ledger: Ledger) -> Interrupt:
    """57P01: an operator, or a server that stops."""
    return lambda conn: ledger.run("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)


def idle_in_its_transaction(ledger: Ledger) -> Interrupt:
    """25P03: the body did something else for too long."""

    def idle(conn: psycopg.Connection[Any]) -> None:
        conn.execute("SET LOCAL idle_in_transaction_session_timeout = 10")
        wait_until_ended(ledger, conn.info.backend_pid)

    return idle


def too_slow(_: Ledger) -> Interrupt:
    """25P04: the transaction took longer than the server allows."""

    def sleep(conn: psycopg.Connection[Any]) -> None:
        conn.execute("SET LOCAL transaction_timeout = 10")
        conn.execute("SELECT pg_sleep(20)")

    return sleep


@pytest.mark.parametrize("interrupt", [told_to_go, idle_in_its_transaction, too_slow])
def test_a_session_that_the_server_ends_costs_an_attempt(
    app: Celery, ledger: Ledger, deliver: Deliver, interrupt: Callable[[Ledger], Interrupt]
) -> None:
    """What it had done is rolled back, and the task runs again."""
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> None:
        attempts.append(1)
        conn.execute(CHARGED)
        if len(attempts) == 1:
            interrupt(ledger)(conn)
            conn.execute(CHARGED)

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


@pytest.mark.parametrize("state", ["53100", "53300", "57P01", "57P02", "57P05", "58030"])
def test_an_outage_that_a_statement_meets(
    app: Celery, ledger: Ledger, deliver: Deliver, state: str
) -> None:
    """Whether a driver tells the state of a lost session is a matter of chance; here it does."""
    outage = SQL("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = {}; END $$").format(state)
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> None:
        attempts.append(1)
        conn.execute(CHARGED)
        if len(attempts) == 1:
            conn.execute(outage)

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


def test_a_task_that_is_always_too_slow_fails(
    app: Celery, ledger: Ledger, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the server that a task cannot keep is no outage: it does not return for ever."""
    monkeypatch.setattr("celery_inbox.transient.ATTEMPTS", 2)

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> None:
        too_slow(ledger)(conn)

    with pytest.raises(psycopg.errors.TransactionTimeout):
        deliver(charge)


def test_a_kept_session_that_was_idle_for_too_long(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """57P05: the server has ended what a pool kept; another one is asked for."""
    lent: list[psycopg.Connection[Any]] = []

    @contextmanager
    def lend() -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(ledger.dsn) as connection:
            lent.append(connection)
            if len(lent) == 1:
                connection.autocommit = True
                connection.execute("SET idle_session_timeout = 10")
                wait_until_ended(ledger, connection.info.backend_pid)
            yield connection

    @app.task(bind=True)
    @idempotent(lend)
    def charge(self: Any, conn: Any) -> None:
        conn.execute(CHARGED)

    deliver(charge)

    assert len(lent) == 2
    assert ledger.effects() == ["charged"]


def test_a_server_that_takes_no_writes(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """25006: a primary that was demoted. Its successor is waited for."""
    attempts: list[int] = []
    name = ledger.dsn.rpartition("/")[2]
    setting = SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")

    def connect() -> Any:
        attempts.append(1)
        return library.connect()

    with psycopg.connect(ledger.dsn, autocommit=True) as admin:
        admin.execute(setting.format(Identifier(name), SQL("on")))

        def end_sessions() -> None:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

        def connect_at_last() -> Any:
            if len(attempts) == 2:
                admin.execute(setting.format(Identifier(name), SQL("off")))
                end_sessions()
            return connect()

        end_sessions()

        @app.task(bind=True)
        @idempotent(connect_at_last)
        def charge(self: Any, handle: Any) -> None:
            library.write(handle, CHARGED)

        deliver(charge)

    assert len(attempts) >= 3
    assert ledger.effects() == ["charged"]


def test_a_body_that_forbids_itself_to_write(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """25006 after the inbox could write: the task's own doing."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> None:
        conn.execute("SET LOCAL transaction_read_only = on")
        conn.execute(CHARGED)

    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        deliver(charge)


def test_a_server_that_crashes(app: Celery, own_postgres: OwnPostgres, deliver: Deliver) -> None:
    """57P02, then 57P03 while it recovers: one task, however many attempts."""
    server: Postgres = own_postgres()
    ledger = Ledger(migrated_database(server))
    ledger.run("CREATE TABLE effect (id bigint GENERATED ALWAYS AS IDENTITY, note text)")
    crashed: list[int] = []

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> None:
        conn.execute(CHARGED)
        if not crashed:
            crashed.append(1)
            server.kill()
            server.start()

    deliver(charge)

    assert crashed
    assert ledger.effects() == ["charged"]


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout", "lock_timeout"])
def test_a_duplicate_that_the_server_lets_wait_no_longer(
    app: Celery, ledger: Ledger, deliver: Deliver, limit: str
) -> None:
    """It goes back to the queue, whichever limit ends its wait for the first delivery."""

    @app.task(bind=True)
    @idempotent(lambda: psycopg.connect(ledger.dsn, options=f"-c {limit}=200"), wait=0.5)
    def charge(self: Any, conn: Any) -> None:
        pytest.fail("ran beside the first")

    with psycopg.connect(ledger.dsn) as elsewhere:
        elsewhere.execute(
            "INSERT INTO inbox.processed (message_id, task) VALUES ('message-1', %s)",
            (charge.name,),
        )
        with pytest.raises(Reject):
            deliver(charge)


def test_a_pool_of_sqlalchemy_with_nothing_to_lend(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Its connections are elsewhere: waited for, as for those of any pool."""
    url = ledger.dsn.replace("postgresql", "postgresql+psycopg", 1)
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    elsewhere, attempts = [engine.connect()], []

    def connect() -> Session:
        attempts.append(1)
        if len(attempts) == 3:
            elsewhere.pop().close()
        return sessionmaker(engine)()

    @app.task(bind=True)
    @idempotent(connect)
    def charge(self: Any, session: Any) -> None:
        pass

    deliver(charge)
    engine.dispose()
    assert len(attempts) == 3


def test_a_pool_that_nobody_opened(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """It stays closed however long one waits: a mistake."""
    pool = ConnectionPool(ledger.dsn, open=False)

    @app.task(bind=True)
    @idempotent(pool.connection)
    def charge(self: Any, conn: Any) -> None:
        pytest.fail("ran without a connection")

    with pytest.raises(psycopg.OperationalError, match="not open"):
        deliver(charge)


def test_a_connect_that_hands_out_the_same_connection(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """It is closed after the first task; the error says what to give instead."""
    only = ledger.connect()

    @app.task(bind=True)
    @idempotent(lambda: only)
    def charge(self: Any, conn: Any) -> None:
        conn.execute(CHARGED)

    deliver(charge, id="first")
    with pytest.raises(UnusableConnection, match=r"closed.* another one each time.* URL or a pool"):
        deliver(charge, id="second")


def wait_until_ended(ledger: Ledger, pid: int) -> None:
    """The session is no more."""
    wait_until(
        lambda: not ledger.run("SELECT pid FROM pg_stat_activity WHERE pid = %s", pid),
        SECONDS,
        "the end of a session",
    )
