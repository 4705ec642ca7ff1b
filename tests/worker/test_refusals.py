"""A task the inbox cannot protect is refused, and the error says what to change."""

from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_inbox import InboxMissing, idempotent
from tests.worker.ledger import Deliver, Ledger


def test_a_missing_inbox_names_the_command_that_makes_it(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """The task does not run unprotected."""
    ledger.run("DROP SCHEMA inbox CASCADE")

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        pytest.fail("ran without an inbox")

    with pytest.raises(InboxMissing, match="outbox-migrate up"):
        deliver(charge)


def test_a_missing_table_of_the_body_is_its_own_error(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Only the inbox's own table is put down to the migrations."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute("SELECT * FROM invoices")

    with pytest.raises(psycopg.errors.UndefinedTable, match="invoices"):
        deliver(charge)


def test_a_task_without_bind_is_refused(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """Without its task the wrapper has no message id; the error names the argument to add."""

    @app.task(typing=False)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, order_id: Any) -> Any:
        pytest.fail("ran unbound")

    with pytest.raises(TypeError, match=r"charge .*@app\.task\(bind=True\)"):
        deliver(charge, 7)


def test_a_body_without_a_place_for_the_connection_is_refused_at_once(ledger: Ledger) -> None:
    """The mistake shows when the module is imported, not when the first message comes."""
    with pytest.raises(TypeError, match=r"charge\(order_id.*\(self, conn, \.\.\.\)"):

        @idempotent(ledger.connect)  # type: ignore[arg-type]  # the mistake; mypy sees it too
        def charge(order_id: Any) -> Any:
            pytest.fail("ran")


def test_a_body_that_only_begins_is_refused_at_once(ledger: Ledger) -> None:
    """A worker would call it, and nothing of it would run."""
    with pytest.raises(TypeError, match=r"charge .*asynchronous.*make it a plain function"):

        @idempotent(ledger.connect)
        async def charge(self: Any, conn: Any) -> None:
            pytest.fail("ran")

    with pytest.raises(TypeError, match=r"listing .*a generator.*make it a function that returns"):

        @idempotent(ledger.connect)
        def listing(self: Any, conn: Any) -> Any:
            yield 1

    with pytest.raises(TypeError, match=r"stream .*asynchronous"):

        @idempotent(ledger.connect)
        async def stream(self: Any, conn: Any) -> Any:
            yield 1


def test_the_decorators_in_the_wrong_order_are_refused_at_once(app: Celery, ledger: Ledger) -> None:
    """@idempotent wraps the body, @app.task wraps that."""
    with pytest.raises(TypeError, match=r"put @idempotent below @app\.task"):

        @idempotent(ledger.connect)
        @app.task(bind=True)
        def charge(self: Any, conn: Any) -> Any:
            pytest.fail("ran")


def test_no_connect() -> None:
    """`@idempotent` without a call would take the task's body for what connects."""

    def charge(self: object, conn: object, order_id: int) -> None: ...

    with pytest.raises(TypeError, match=r"charge cannot be called .*@idempotent\(connect\)"):
        idempotent(charge)


@pytest.mark.parametrize("given", [None, 7, object()], ids=["none", "int", "object"])
def test_a_connect_that_returns_something_else_is_refused(
    app: Celery, deliver: Deliver, given: Any
) -> None:
    """The error says what connect() may return."""

    @app.task(bind=True)
    @idempotent(lambda: given)
    def charge(self: Any, conn: Any) -> Any:
        pytest.fail("ran without a database")

    with pytest.raises(TypeError, match=rf"returned {type(given).__qualname__}; it must return"):
        deliver(charge)


def test_senders_get_their_arguments_checked_as_for_any_task(app: Celery, ledger: Ledger) -> None:
    """The sender passes what the body takes, without task and connection."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, order_id: Any, note: Any = None) -> Any:
        pytest.fail("ran")

    charge.delay(7)
    charge.delay(7, note="again")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'order_id'"):
        charge.delay()
    with pytest.raises(TypeError, match="unexpected keyword argument 'conn'"):
        charge.delay(7, conn=None)
