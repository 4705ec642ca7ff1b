"""A database from before the first release is told so, and rebuilt without losing a row.

`before_the_first_release.sql` is what `outbox-migrate sql` printed at the end of the old chain.
"""

from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from outbox_migrations import MigrationError, rebuild, status, upgrade
from servers import Postgres
from tests.fixtures.rows import ids_in
from tests.migrations.test_commands import catalogue

OLD: Final = Path(__file__).with_name("before_the_first_release.sql").read_text(encoding="utf-8")
#: Messages of every kind: pending, claimed, scheduled, in a lane, waiting for another attempt,
#: dead, sent; one with a dedup_key; one processed by a worker.
LIFE: Final = """
SELECT outbox.enqueue('shop.bill', task_id => 'pending');
SELECT outbox.enqueue('shop.bill', task_id => 'claimed');
SELECT outbox.enqueue('shop.bill', task_id => 'scheduled', eta => now() + interval '1 day');
SELECT outbox.enqueue('shop.bill', task_id => 'first', ordering_key => 'a');
SELECT outbox.enqueue('shop.bill', task_id => 'second', ordering_key => 'a');
SELECT outbox.enqueue('shop.bill', task_id => 'single', dedup_key => 'd');
SELECT outbox.enqueue('shop.bill', task_id => 'retry');
SELECT outbox.enqueue('shop.bill', task_id => 'dead');
SELECT outbox.enqueue('shop.bill', task_id => 'sent');
UPDATE outbox.ready SET lease = 7, lease_until = now() + interval '1 minute'
    WHERE id = (SELECT id FROM outbox.message WHERE message_id = 'claimed');
WITH refused AS (
    DELETE FROM outbox.ready r USING outbox.message m
    WHERE m.id = r.id AND m.message_id IN ('retry', 'dead') RETURNING r.id, r.slot, m.message_id)
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
SELECT id, slot, message_id, now() + interval '1 hour', 3, 'unroutable' FROM refused;
WITH confirmed AS (
    DELETE FROM outbox.ready WHERE id = (SELECT id FROM outbox.message WHERE message_id = 'sent')
    RETURNING id)
INSERT INTO outbox.receipt (span, ids) SELECT int8range(id, id, '[]'), ARRAY[id] FROM confirmed;
INSERT INTO inbox.processed (message_id, task, result) VALUES ('sent', 'shop.bill', '1');
"""
SHOWN: Final = """
SELECT 'pending', message_id, created_at, available_at, attempts, last_error FROM outbox.pending
UNION ALL SELECT 'scheduled', message_id, created_at, available_at, attempts, last_error
    FROM outbox.scheduled
UNION ALL SELECT 'dead', message_id, created_at, available_at, attempts, last_error FROM outbox.dead
UNION ALL SELECT 'sent', message_id, created_at, sent_at, 0, NULL FROM outbox.sent
UNION ALL SELECT 'lane', key, NULL, NULL, id::int, NULL FROM outbox.lane
UNION ALL SELECT 'dedup', key, looked_at, NULL, id::int, message_id FROM outbox.dedup
UNION ALL SELECT 'inbox', message_id, processed_at, NULL, 0, result::text FROM inbox.processed
ORDER BY 1, 2
"""


@pytest.fixture
def old_database(empty_database: str) -> str:
    """A database at the end of the old chain, with a row of every kind."""
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(OLD.encode())
        connection.execute(LIFE.encode())
    return empty_database


def shown(database: str) -> list[tuple[Any, ...]]:
    """What people see of it."""
    with psycopg.connect(database) as connection:
        return connection.execute(SHOWN).fetchall()


@pytest.mark.parametrize("component", ["outbox", "inbox"])
def test_up_says_what_to_do(old_database: str, component: Any) -> None:
    """One sentence, and nothing has changed."""
    before = catalogue(old_database, "outbox", "inbox")

    with pytest.raises(MigrationError, match="outbox-migrate rebuild"):
        upgrade(old_database, component=component)

    assert catalogue(old_database, "outbox", "inbox") == before


def test_a_rebuilt_database_is_todays_with_every_row(postgres: Postgres, old_database: str) -> None:
    """The very same schema as a new one, and every message in the state it was in."""
    before = shown(old_database)
    assert {row[0] for row in before} == {
        "pending",
        "scheduled",
        "dead",
        "sent",
        "lane",
        "dedup",
        "inbox",
    }
    new = postgres.create_database()
    upgrade(new)

    rebuild(old_database)

    assert shown(old_database) == before
    assert catalogue(old_database, "outbox", "inbox") == catalogue(new, "outbox", "inbox")
    assert all(each.current for each in status(old_database))
    upgrade(old_database)


def test_numbers_go_on_after_a_rebuild(old_database: str) -> None:
    """A new message gets a number that no other has had."""
    rebuild(old_database)

    with psycopg.connect(old_database) as connection:
        connection.execute("SELECT outbox.enqueue('shop.bill', task_id => 'new')")
        newest = connection.execute(
            "SELECT message_id FROM outbox.message ORDER BY id DESC LIMIT 1"
        ).fetchone()
    assert newest == ("new",)


def test_a_claim_is_still_a_claim_after_a_rebuild(old_database: str) -> None:
    """Its message may have been on the wire: it says so in a column of another name."""
    rebuild(old_database)

    with psycopg.connect(old_database) as connection:
        claimed = connection.execute(
            "SELECT message_id, claim_id FROM outbox.ready JOIN outbox.message USING (id)"
            " WHERE claim_id IS NOT NULL"
        ).fetchall()
    assert claimed == [("claimed", 7)]


def test_receipts_find_their_slots(old_database: str) -> None:
    """One may be of messages in several, and of one whose id another message has by now."""
    with psycopg.connect(old_database, autocommit=True) as connection:
        for task_id in ("one", "two"):
            connection.execute("SELECT outbox.enqueue('shop.bill', task_id => %s)", [task_id])
        connection.execute(
            "WITH done AS (DELETE FROM outbox.ready r USING outbox.message m WHERE m.id = r.id"
            " AND m.message_id IN ('one', 'two') RETURNING r.id)"
            " INSERT INTO outbox.receipt (span, ids)"
            " SELECT int8range(min(id), max(id), '[]'), array_agg(id) FROM done"
        )
        connection.execute(
            "UPDATE outbox.message SET slot = (slot + 1) % 16 WHERE message_id = 'one'"
        )
        connection.execute(
            "INSERT INTO outbox.message (id, message_id, task, body, content_type,"
            " content_encoding) OVERRIDING SYSTEM VALUE SELECT id, 'twin', 't', '', 'c', 'e'"
            " FROM outbox.message WHERE message_id = 'one'"
        )

    rebuild(old_database)

    with psycopg.connect(old_database) as connection:
        connection.execute("SELECT outbox.enqueue('shop.bill', task_id => 'new')")
        spans = connection.execute("SELECT cardinality(ids) FROM outbox.receipt").fetchall()
    assert spans == [(1,), (1,), (1,)]
    assert ids_in(old_database, "sent") == {"sent", "one", "two"}
    assert ids_in(old_database, "pending") >= {"twin", "new"}


def test_only_an_old_database_is_rebuilt(database: str) -> None:
    """A new one is left as it is."""
    before = catalogue(database, "outbox", "inbox")

    with pytest.raises(MigrationError, match="can be rebuilt"):
        rebuild(database)

    assert catalogue(database, "outbox", "inbox") == before
