"""Transactions that are prepared and left open: theirs waits, for as long as they are open."""

from collections.abc import Iterator

import psycopg
import pytest

from tests.faults.lab import DEADLINE, Lab, LabOn
from tests.faults.ledger import insert
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.waiting import wait_until


@pytest.fixture
def prepared_lab(lab_on: LabOn, own_postgres: OwnPostgres) -> Iterator[Lab]:
    """A lab on a server that takes prepared transactions; none may outlive the test."""
    lab = lab_on(migrated_database(own_postgres({"max_prepared_transactions": "10"})))
    yield lab
    with psycopg.connect(lab.database, autocommit=True) as connection:
        for (gid,) in connection.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
            connection.execute(f"ROLLBACK PREPARED '{gid}'".encode())


def prepare(lab: Lab, gid: str, *statements: str) -> set[str]:
    """Run statements, insert a message, and leave both prepared; its id, of an unknown fate."""
    ids = lab.ledger.new_ids(1)
    with psycopg.connect(lab.database, autocommit=True) as connection:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement.encode())
        insert(connection, ids)
        connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
    return ids


@pytest.mark.smoke
def test_what_is_prepared_is_sent_once_it_is_committed(prepared_lab: Lab) -> None:
    """Neither before, nor after a rollback; others are sent meanwhile, and doctor names it."""
    lab = prepared_lab
    relay = lab.relay()
    kept, dropped = prepare(lab, "kept"), prepare(lab, "dropped")
    lab.commit(200)
    lab.wait_until_sent()
    assert lab.sent() == 200

    doctor = lab.command("doctor")
    doctor.wait()
    assert "prepared transaction 'kept'" in doctor.output()
    lab.run("COMMIT PREPARED 'kept'")
    lab.run("ROLLBACK PREPARED 'dropped'")
    wait_until(lambda: lab.sent() == 201, DEADLINE, "what was prepared")

    assert not relay.events("database_lost")
    lab.ledger.committed.update(kept)
    lab.ledger.rolled_back.update(dropped)
    lab.finish(duplicates=0)


@pytest.mark.smoke
def test_a_row_that_a_prepared_transaction_has_taken_back(prepared_lab: Lab) -> None:
    """It cancelled a message that a relay may hold: that row waits, all others are sent."""
    lab = prepared_lab
    (taken,) = lab.commit(1)
    other = prepare(lab, "cancelled", f"SELECT outbox.cancel('{taken}')")
    relay = lab.relay()
    lab.commit(200)
    wait_until(lambda: lab.sent() == 200, DEADLINE, "all but that one")

    lab.run("ROLLBACK PREPARED 'cancelled'")
    lab.wait_until_sent()

    assert not relay.events("database_lost")
    lab.ledger.rolled_back.update(other)
    lab.finish(duplicates=0)


@pytest.mark.smoke
def test_a_key_that_a_prepared_transaction_holds(prepared_lab: Lab) -> None:
    """Whoever sends with the same key waits for it, and no longer than they say; nobody else."""
    lab = prepared_lab
    lab.relay()
    other = prepare(lab, "keyed", "SELECT outbox.enqueue('t', dedup_key => 'k')")
    with psycopg.connect(lab.database, autocommit=True) as connection:
        connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute("SELECT outbox.enqueue('t', dedup_key => 'k')")
    lab.commit(100)
    lab.wait_until_sent()
    lab.run("ROLLBACK PREPARED 'keyed'")

    lab.ledger.rolled_back.update(other)
    lab.finish(duplicates=0)
