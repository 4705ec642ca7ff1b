"""Inbox rows are forgotten when no duplicate can come any more, and not before."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from celery import Celery
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from celery_inbox import InboxMissing, idempotent, purge
from celery_inbox.retention import RETENTION
from outbox_relay.configuration import from_environment
from tests.worker.ledger import Deliver, Ledger

_FILL = """
INSERT INTO inbox.processed (message_id, task, processed_at)
SELECT 'message-' || n, 'shop.charge', now() - %s * interval '1 second' - n * interval '1 ms'
FROM generate_series(1, %s) n
"""


def fill(ledger: Ledger, age: timedelta, count: int = 1) -> None:
    """Have messages processed that long ago."""
    ledger.run(_FILL, age.total_seconds(), count)


def test_by_default_rows_live_for_two_weeks(ledger: Ledger) -> None:
    """What is older goes, what is younger stays."""
    fill(ledger, timedelta(days=14, hours=1), 3)
    ledger.run(
        "UPDATE inbox.processed SET processed_at = now() - interval '13 days 23 hours'"
        " WHERE message_id = 'message-2'"
    )

    assert purge(ledger.connect) == 2

    assert [row[0] for row in ledger.inbox()] == ["message-2"]


def test_rows_outlive_what_the_outbox_can_replay() -> None:
    """A message replayed at the last moment finds its row, and for days to come."""
    environment = {
        "OUTBOX_DATABASE_URL": "postgresql:///shop",
        "OUTBOX_BROKER_URL": "amqp://rabbitmq",
    }
    sent = timedelta(seconds=from_environment(environment).retention)

    # The outbox forgets half a day at a time.
    assert sent + timedelta(hours=12) + timedelta(days=6) < RETENTION


def test_the_defaults_of_sql_and_python_agree(ledger: Ledger) -> None:
    """Whoever runs it."""
    default = ledger.run(
        "SELECT pg_get_expr(proargdefaults, 0)::text FROM pg_proc"
        " WHERE oid = 'inbox.purge'::regproc"
    )

    assert timedelta(days=14) == RETENTION
    assert default == [("'14 days'::interval",)]


def test_many_rows_go_in_portions(ledger: Ledger) -> None:
    """One call in SQL is one short transaction; the Python function goes on until it is done."""
    fill(ledger, timedelta(days=15), 25_000)

    assert ledger.run("SELECT inbox.purge()") == [(10_000,)]
    assert purge(ledger.connect) == 15_000
    assert purge(ledger.connect) == 0


def test_a_portion_is_found_by_the_index(ledger: Ledger) -> None:
    """Nothing to purge costs nothing, however many rows are kept."""
    fill(ledger, timedelta(days=1), 50_000)
    ledger.run("ANALYZE inbox.processed")
    with psycopg.connect(ledger.dsn, autocommit=True) as session:
        session.execute("SELECT inbox.purge()")
        session.execute("SELECT pg_stat_force_next_flush()")
    scans = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relid = %s::regclass"
    before = ledger.run(scans, "inbox.processed")[0]

    with psycopg.connect(ledger.dsn, autocommit=True) as session:
        session.execute("SELECT inbox.purge()")
        session.execute("SELECT pg_stat_force_next_flush()")

    after = ledger.run(scans, "inbox.processed")[0]
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_two_purges_at_once_do_not_wait(ledger: Ledger) -> None:
    """They take different rows."""
    fill(ledger, timedelta(days=15), 15_000)
    with psycopg.connect(ledger.dsn) as other:
        other.execute("SELECT inbox.purge()")

        assert purge(ledger.connect) == 5_000
    assert ledger.inbox() == []


def test_a_session_of_sqlalchemy_will_do(ledger: Ledger) -> None:
    """Whatever @idempotent takes, purge takes."""
    url = ledger.dsn.replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, poolclass=NullPool)
    begin: sessionmaker[Session] = sessionmaker(engine)
    fill(ledger, timedelta(days=15), 2)

    assert purge(begin.begin) == 2
    assert purge(begin) == 0
    assert ledger.inbox() == []


def test_what_is_forgotten_runs_again(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """The price of a retention that is too short."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute("INSERT INTO effect (note) VALUES ('charged')")

    deliver(charge)
    deliver(charge)
    assert purge(ledger.connect, older_than=timedelta(0)) == 1
    deliver(charge)

    assert ledger.effects() == ["charged", "charged"]


@pytest.mark.parametrize("missing", ["FUNCTION inbox.purge", "SCHEMA inbox CASCADE"])
def test_an_inbox_without_it_names_the_command_that_makes_it(ledger: Ledger, missing: Any) -> None:
    """Also where the inbox is of an older version."""
    ledger.run("DROP " + missing)

    with pytest.raises(InboxMissing, match="outbox-migrate up"):
        purge(ledger.connect)
