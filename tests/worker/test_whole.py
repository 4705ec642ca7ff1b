"""However a body ends its own transaction, no inbox row is committed with a part of the effects."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
import pytest
from celery import Celery
from django.db import connections  # type: ignore[import-untyped]  # Django ships no types
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from celery_inbox import TransactionEnded, idempotent
from tests.worker.ledger import Deliver, Ledger
from tests.worker.libraries import Library

FIRST = "INSERT INTO effect (note) VALUES ('first half')"
SECOND = "INSERT INTO effect (note) VALUES ('second half')"

#: Ways of every driver to end a transaction in SQL.
IN_SQL: dict[str, LiteralString] = {
    "commit": "COMMIT",
    "commit and chain": "COMMIT AND CHAIN",
    "prepare": "PREPARE TRANSACTION 'half'",
    "at once": "SET CONSTRAINTS ALL IMMEDIATE",
    "rollback": "ROLLBACK",
    "rollback and chain": "ROLLBACK AND CHAIN",
}


def driver_connection(handle: Any) -> Any:
    """The driver's own connection, which knows nothing of what is built on it."""
    if isinstance(handle, str):
        return connections[handle].connection
    if isinstance(handle, Session):
        return handle.connection().connection.driver_connection
    return handle


def of_the_library(name: str) -> Callable[[Any], Any]:
    """Call the method of the connection, session or Django connection."""

    def end(handle: Any) -> Any:
        return getattr(connections[handle] if isinstance(handle, str) else handle, name)()

    return end


def of_the_driver(name: str) -> Callable[[Any], Any]:
    """Call the method of the connection below the library."""
    return lambda handle: getattr(driver_connection(handle), name)()


def autocommit(handle: Any) -> None:
    """Switch autocommit on in the middle of the transaction."""
    driver_connection(handle).autocommit = True


BY_METHOD: dict[str, Callable[[Any], Any]] = {
    "commit()": of_the_library("commit"),
    "rollback()": of_the_library("rollback"),
    "close()": of_the_library("close"),
    "the driver's commit()": of_the_driver("commit"),
    "the driver's rollback()": of_the_driver("rollback"),
    "the driver's close()": of_the_driver("close"),
    "autocommit": autocommit,
}


ENDS = [*IN_SQL, *BY_METHOD]


def assert_nothing_is_half(ledger: Ledger, end: str = "") -> None:
    """No inbox row vouches for the first half alone: the message can be delivered again."""
    assert ledger.inbox() == [], end
    assert ledger.effects() in ([], ["second half"]), end


def test_no_end_of_the_bodys_own_is_a_success(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """Refused by the library or by the database, or noticed at the end."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any, end: str) -> None:
        library.write(handle, FIRST)
        ended_by(library, handle, end)
        if end in IN_SQL:
            library.write(handle, SECOND)

    for end in ENDS:
        with pytest.raises(Exception, match=r"."):
            deliver(charge, end, id=end)
        assert_nothing_is_half(ledger, end)
        ledger.run("DELETE FROM effect")


def test_a_refusal_that_the_body_swallows(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """It may go on as if nothing had been: it does not end as a success with half its effects."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any, end: str) -> None:
        library.write(handle, FIRST)
        with suppress(Exception):
            ended_by(library, handle, end)
        with suppress(Exception):
            library.write(handle, SECOND)

    for end in ENDS:
        try:
            deliver(charge, end, id=end)
        except Exception:
            assert_nothing_is_half(ledger, end)
        else:  # what was refused had not touched the transaction
            assert ledger.effects() == ["first half", "second half"], end
            assert len(ledger.inbox()) == 1, end
        ledger.run("DELETE FROM effect")
        ledger.run("DELETE FROM inbox.processed")


def ended_by(library: Library, handle: Any, end: str) -> None:
    """End the transaction in this way."""
    if end in IN_SQL:
        library.write(handle, IN_SQL[end])
    else:
        BY_METHOD[end](handle)


def test_after_the_error_the_message_can_be_delivered_again(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The redelivery of a message whose body committed is no duplicate, and has both halves."""
    mistaken = [True]

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> None:
        library.write(handle, FIRST)
        if mistaken:
            mistaken.pop()
            library.write(handle, "COMMIT")
        library.write(handle, SECOND)

    with pytest.raises(TransactionEnded, match="leave the transaction to @idempotent"):
        deliver(charge)
    deliver(charge)

    assert ledger.effects() == ["first half", "second half"]


def test_an_engine_in_autocommit_is_refused(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """Before the body runs."""
    engine = create_engine(
        ledger.dsn.replace("postgresql", "postgresql+psycopg", 1), isolation_level="AUTOCOMMIT"
    )

    @app.task(bind=True)
    @idempotent(lambda: Session(engine))
    def charge(self: Any, session: Any) -> None:
        pytest.fail("ran without a transaction")

    with pytest.raises(TransactionEnded, match="connection in autocommit"):
        deliver(charge)
    engine.dispose()
    assert ledger.inbox() == []


def test_another_driver_of_sqlalchemy(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """What the database refuses, it refuses psycopg2 as well."""
    engine = create_engine(ledger.dsn.replace("postgresql", "postgresql+psycopg2", 1))

    @app.task(bind=True)
    @idempotent(lambda: Session(engine))
    def charge(self: Any, session: Any, half: bool) -> str:
        session.execute(text(FIRST))
        if half:
            session.commit()
        return "whole"

    with pytest.raises(TransactionEnded):
        deliver(charge, True)
    assert_nothing_is_half(ledger)
    assert deliver(charge, False) == "whole"
    assert deliver(charge, False) == "whole"
    engine.dispose()
    assert ledger.effects() == ["first half"]


def test_a_direct_call_is_told_as_well(app: Celery, ledger: Ledger) -> None:
    """Tests that call a task directly or eagerly meet the mistake that workers would."""
    engine = create_engine(ledger.dsn.replace("postgresql", "postgresql+psycopg", 1))

    @app.task(bind=True)
    @idempotent(lambda: Session(engine))
    def charge(self: Any, session: Any) -> None:
        session.execute(text(FIRST))
        session.commit()

    with pytest.raises(TransactionEnded):
        charge()
    engine.dispose()


def test_savepoints_are_the_bodys_own(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """Released or rolled back, also around the whole body."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> None:
        library.write(handle, "SAVEPOINT mine")
        library.write(handle, FIRST)
        library.write(handle, "ROLLBACK TO mine")
        library.write(handle, "RELEASE mine")
        library.write(handle, "SAVEPOINT other")
        library.write(handle, SECOND)
        library.write(handle, "RELEASE other")

    deliver(charge)
    deliver(charge)
    assert ledger.effects() == ["second half"]


def test_rows_that_no_task_claims_are_let_pass(ledger: Ledger) -> None:
    """A restored dump, or a worker of an earlier version."""
    ledger.run("INSERT INTO inbox.processed (message_id, task) VALUES ('restored', 'charge')")

    assert len(ledger.inbox()) == 1


def test_replication_settings_do_not_switch_it_off(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """As tools that load data switch triggers off."""

    @app.task(bind=True)
    @idempotent(lambda: psycopg.connect(ledger.dsn, options="-c session_replication_role=replica"))
    def charge(self: Any, conn: Any) -> None:
        conn.execute(FIRST)
        conn.execute("COMMIT")

    with pytest.raises(TransactionEnded):
        deliver(charge)
    assert_nothing_is_half(ledger)


def test_a_block_of_psycopg_that_asks_to_roll_back(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """`raise psycopg.Rollback()` leaves nothing and is no error, as in any block of psycopg's."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> None:
        conn.execute(FIRST)
        raise psycopg.Rollback

    assert deliver(charge) is None
    assert deliver(charge) is None
    assert ledger.effects() == []
    assert ledger.inbox() == []
