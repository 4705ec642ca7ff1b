"""psycopg, SQLAlchemy and Django tasks behave alike: what holds for one holds for all."""

from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore

from celery_inbox import InboxMissing, idempotent
from tests.worker.ledger import Deliver, Ledger
from tests.worker.libraries import NOTE, Library


def test_effects_and_inbox_row_commit_together_once(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The duplicate is answered from the inbox."""

    @app.task(bind=True, name="charge")
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        library.write(handle, NOTE)
        return {"charged": True}

    assert deliver(charge) == {"charged": True}
    assert deliver(charge) == {"charged": True}
    assert ledger.effects() == ["charged"]
    assert ledger.inbox() == [("message-1", "charge", '{"charged": true}')]


def test_an_error_rolls_everything_back(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """Neither effects nor inbox row stay."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        library.write(handle, NOTE)
        raise LookupError("no such card")

    with pytest.raises(LookupError):
        deliver(charge)
    assert ledger.effects() == []
    assert ledger.inbox() == []


def test_ignore_commits(app: Celery, ledger: Ledger, deliver: Deliver, library: Library) -> None:
    """What replace() ends with is no failure."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        library.write(handle, NOTE)
        raise Ignore

    with pytest.raises(Ignore):
        deliver(charge)
    assert ledger.effects() == ["charged"]


def test_a_lost_race_is_tried_again(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The driver's error is recognised inside the library's own."""
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        attempts.append(1)
        library.write(handle, NOTE)
        if len(attempts) == 1:
            library.write(handle, "DO $$ BEGIN RAISE serialization_failure; END $$")

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


def test_a_lost_connection_is_replaced(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The next attempt gets a connection that works."""
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        attempts.append(1)
        library.write(handle, NOTE)
        if len(attempts) == 1:
            ledger.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


def test_a_missing_inbox_is_named(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The library's wrapping does not hide what is missing."""
    ledger.run("DROP SCHEMA inbox CASCADE")

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        pytest.fail("ran without an inbox")

    with pytest.raises(InboxMissing):
        deliver(charge)
