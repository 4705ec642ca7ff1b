"""One statement in a transaction of its own, as receipts, heartbeats and the purge are."""

import psycopg
import pytest

from celery_inbox.errors import UnusableConnection
from celery_inbox.target import Statement
from celery_inbox.targets import opened
from tests.worker.ledger import Ledger
from tests.worker.libraries import Library

WRITE = Statement("INSERT INTO effect (note) VALUES (%s) RETURNING note", ("alone",))


def test_it_is_committed_and_answers(ledger: Ledger, library: Library) -> None:
    """With its first row."""
    with opened(library.connect) as target:
        assert target.alone(WRITE) == ("alone",)

    assert ledger.effects() == ["alone"]


def test_what_fails_raises_and_the_next_does_not(ledger: Ledger, library: Library) -> None:
    """No transaction is left open."""
    with pytest.raises(Exception, match="division by zero"), opened(library.connect) as target:
        target.alone(Statement("INSERT INTO effect (note) SELECT 1 / 0"))
    with opened(library.connect) as target:
        target.alone(WRITE)

    assert ledger.effects() == ["alone"]


def test_a_transaction_that_had_begun_is_committed_too(ledger: Ledger) -> None:
    """As the function that connects may have asked something."""

    def connect() -> psycopg.Connection:
        connection = psycopg.connect(ledger.dsn)
        connection.execute("INSERT INTO effect (note) VALUES ('asked')")
        return connection

    with opened(connect) as target:
        target.alone(WRITE)

    assert sorted(ledger.effects()) == ["alone", "asked"]


def test_a_closed_connection_is_refused(ledger: Ledger) -> None:
    """In our words."""

    def connect() -> psycopg.Connection:
        connection = psycopg.connect(ledger.dsn)
        connection.close()
        return connection

    with (
        pytest.raises(UnusableConnection, match="it was given is closed"),
        opened(connect) as target,
    ):
        target.alone(WRITE)
