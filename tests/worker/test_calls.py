"""An idempotent task that calls another as a function runs it as a part of its own attempt."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from celery import Celery

from celery_inbox import idempotent
from tests.worker.ledger import Deliver, Ledger
from tests.worker.libraries import NOTE, Library

#: The ways in which a body can call its own task.
CALLS: dict[str, Callable[[Any, bool], Any]] = {
    "run": lambda task, again: task.run(again),
    "call": lambda task, again: task(again),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_task_that_calls_itself_goes_on(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library, call: str
) -> None:
    """It does not wait for its own row, nor take itself for a duplicate: all is one commit."""
    seen: list[int] = []

    @app.task(bind=True)
    @idempotent(library.connect, wait=0.5)
    def charge(self: Any, handle: Any, again: bool) -> str:
        library.write(handle, NOTE)
        seen.append(len(ledger.effects()))
        return f"outer and {CALLS[call](self, False)}" if again else "inner"

    assert deliver(charge, True) == "outer and inner"
    assert deliver(charge, True) == "outer and inner"
    assert seen == [0, 0]
    assert ledger.effects() == ["charged", "charged"]
    assert ledger.inbox() == [("message-1", charge.name, '"outer and inner"')]


def test_another_task_with_the_same_connect_is_a_part_of_the_attempt(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """An attempt that loses a race leaves nothing of it: its effects happen once."""
    attempts: list[str] = []

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> str:
        library.write(handle, NOTE)
        return "charged"

    @app.task(bind=True)
    @idempotent(library.connect)
    def order(self: Any, handle: Any) -> str:
        attempts.append(charge())
        if len(attempts) == 1:
            raise psycopg.errors.SerializationFailure
        return attempts[-1]

    assert deliver(order) == "charged"
    assert attempts == ["charged", "charged"]
    assert ledger.effects() == ["charged"]


def test_another_task_with_a_connect_of_its_own_has_a_transaction_of_its_own(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """What it did stays, whatever becomes of the attempt that called it."""

    @app.task(bind=True)
    @idempotent(lambda: psycopg.connect(ledger.dsn))
    def charge(self: Any, conn: Any) -> None:
        conn.execute(NOTE)

    @app.task(bind=True)
    @idempotent(ledger.dsn)
    def order(self: Any, conn: Any) -> None:
        charge()
        raise LookupError

    with pytest.raises(LookupError):
        deliver(order)
    assert ledger.effects() == ["charged"]


def test_after_its_attempt_a_task_is_called_as_ever(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Nothing is left of an attempt that failed: a later call has a transaction of its own."""

    @app.task(bind=True)
    @idempotent(ledger.dsn)
    def charge(self: Any, conn: Any, fails: bool) -> None:
        conn.execute(NOTE)
        if fails:
            raise LookupError

    with pytest.raises(LookupError):
        deliver(charge, True)
    charge(False)
    assert ledger.effects() == ["charged"]
