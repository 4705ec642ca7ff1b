"""Retention forgets what was sent, in time; what is not sent it never touches."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.rows import commit_rows, ids_in, states
from tests.fixtures.waiting import wait_until

Connection = psycopg.Connection[Any]

#: A message of nine days ago, in the slot before the current one.
INSERT_OLD = """
INSERT INTO outbox.message
    (message_id, task, body, content_type, content_encoding, declare, slot, created_at)
VALUES (%s, 't', '', 'text/plain', 'utf-8', %s,
        (extract(epoch FROM now())::bigint / 43200 + 15) %% 16, now() - interval '9 days')
"""

#: The kind of each change that a slot has to tell; it is told once.
CAPTURED = """
SELECT substring(data FROM 1 FOR 1) FROM pg_logical_slot_get_binary_changes(
    'capture', NULL, NULL, 'proto_version', '1', 'publication_names', 'everything')
"""


@pytest.fixture
def session(emptied_database: str) -> Any:
    """A session on the emptied database, committing each statement."""
    with psycopg.connect(emptied_database, autocommit=True) as connection:
        yield connection


def age(connection: Connection, by: timedelta, slots: int = 1) -> None:
    """Make every message older, and move it and its work that many slots back."""
    connection.execute(
        "UPDATE outbox.message SET created_at = created_at - %s, slot = (slot - %s + 16) %% 16",
        [by, slots],
    )
    for table in ("ready", "parked", "receipt"):
        connection.execute(
            SQL("UPDATE outbox.{} SET slot = (slot - {} + 16) % 16").format(
                SQL(table), Literal(slots)
            )
        )
    connection.execute("UPDATE outbox.receipt SET sent_at = sent_at - %s", [by])


def settle_all(connection: Connection) -> None:
    """Confirm everything that is ready."""
    connection.execute(
        "WITH done AS (DELETE FROM outbox.ready RETURNING id, slot)"
        " INSERT INTO outbox.receipt (slot, span, ids)"
        " SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM done GROUP BY 1"
    )


def purge(connection: Connection, older_than: str = "7 days", *, exact: bool = False) -> int:
    """Run retention."""
    row = connection.execute(
        "SELECT outbox.purge(%s::interval, %s)", [older_than, exact]
    ).fetchone()
    assert row is not None
    return int(row[0])


def count(connection: Connection) -> int:
    """Messages kept."""
    row = connection.execute("SELECT count(*) FROM outbox.message").fetchone()
    assert row is not None
    return int(row[0])


def test_the_young_stay(session: Connection, emptied_database: str) -> None:
    """Nothing within the retention is forgotten, sent or not."""
    commit_rows(emptied_database, 3)
    settle_all(session)

    purge(session)

    assert states(emptied_database)["sent"] == 3


def test_old_sent_messages_go(session: Connection, emptied_database: str) -> None:
    """With their receipts."""
    commit_rows(emptied_database, 3)
    settle_all(session)
    age(session, timedelta(days=9))

    purge(session)

    assert count(session) == 0
    receipts = session.execute("SELECT count(*) FROM outbox.receipt").fetchone()
    assert receipts == (0,)


@pytest.mark.parametrize("exact", [False, True])
def test_what_is_not_sent_stays_however_old(
    session: Connection, emptied_database: str, exact: bool
) -> None:
    """Pending, scheduled, refused and dead messages survive the end of their slot."""
    sent = commit_rows(emptied_database, 2)
    settle_all(session)
    pending = commit_rows(emptied_database, 2)
    scheduled = commit_rows(emptied_database, available_in=3600)
    dead = commit_rows(emptied_database)
    session.execute(
        "WITH failed AS (DELETE FROM outbox.ready WHERE id = (SELECT max(id) FROM outbox.ready)"
        " RETURNING id, slot) INSERT INTO outbox.parked (id, slot, state, available_at)"
        " SELECT id, slot, 'dead', now() FROM failed"
    )
    age(session, timedelta(days=30))

    purge(session, exact=exact)

    assert ids_in(emptied_database, "sent").isdisjoint(sent)
    assert ids_in(emptied_database, "pending") == set(pending)
    assert ids_in(emptied_database, "scheduled") == set(scheduled)
    assert ids_in(emptied_database, "dead") == set(dead)
    assert count(session) == 4


def test_nothing_claimed_is_moved(session: Connection, emptied_database: str) -> None:
    """A relay that holds rows of a slot finds them where it claimed them."""
    commit_rows(emptied_database, 2)
    settle_all(session)
    commit_rows(emptied_database)
    session.execute("UPDATE outbox.ready SET claim_id = 1, lease_until = now() + interval '1 hour'")
    age(session, timedelta(days=30))
    before = session.execute("SELECT slot FROM outbox.ready").fetchall()

    purge(session)

    assert session.execute("SELECT slot FROM outbox.ready").fetchall() == before
    assert states(emptied_database)["pending"] == 1


def test_exact_purging_deletes_within_the_slot_in_use(
    session: Connection, emptied_database: str
) -> None:
    """Somebody who asks for it is not put off to the end of the half day."""
    commit_rows(emptied_database, 3)
    settle_all(session)
    commit_rows(emptied_database)

    assert purge(session, "0", exact=True) == 3

    assert states(emptied_database) == {"pending": 1, "scheduled": 0, "sent": 0, "dead": 0}


def test_retention_waits_for_nobody(session: Connection, emptied_database: str) -> None:
    """A long report on old messages: the slot is left for another time, and nobody queues."""
    commit_rows(emptied_database)
    settle_all(session)
    age(session, timedelta(days=9))
    with psycopg.connect(emptied_database) as reader:
        reader.execute("SELECT FROM outbox.message")

        purge(session)

        assert count(session) == 1
    purge(session)
    assert count(session) == 0


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_empties_nothing(
    session: Connection, emptied_database: str, level: str
) -> None:
    """What was committed after it was taken would not be seen, and go with its slot."""
    commit_rows(emptied_database)
    settle_all(session)
    age(session, timedelta(days=9))
    with psycopg.connect(emptied_database) as purging:
        purging.execute(SQL("SET TRANSACTION ISOLATION LEVEL {}").format(SQL(level)))
        purging.execute("SELECT FROM outbox.message")
        session.execute(INSERT_OLD, ["late", "[]"])

        purge(purging)

    assert ids_in(emptied_database, "pending") == {"late"}


def test_what_is_sent_again_meanwhile_stays(session: Connection, emptied_database: str) -> None:
    """Retention sees it as sent: its next run sees that it is not."""
    again, sent = commit_rows(emptied_database, 2)
    settle_all(session)
    with psycopg.connect(emptied_database) as other:
        other.execute("SELECT outbox.replay_message(%s)", [again])
        assert purge(session, "0", exact=True) == 0

    assert purge(session, "0", exact=True) == 1
    assert ids_in(emptied_database, "pending") == {again}
    assert ids_in(emptied_database, "sent") == set()
    assert sent != again


def test_what_is_forgotten_just_now_is_not_sent_again(
    session: Connection, emptied_database: str
) -> None:
    """Whoever asks for it waits until it is gone, and is told so; no work is left behind."""
    (id_,) = commit_rows(emptied_database)
    settle_all(session)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event = 'advisory'"
    )

    def replay() -> object:
        with psycopg.connect(emptied_database) as other:
            return other.execute("SELECT outbox.replay_message(%s)", [id_]).fetchone()

    with ThreadPoolExecutor(1) as beside, psycopg.connect(emptied_database) as purging:
        assert purge(purging, "0", exact=True) == 1
        replayed = beside.submit(replay)
        wait_until(lambda: session.execute(waiting).fetchone() == (1,), 10, "it waits")
        purging.commit()
        assert replayed.result(10) == (0,)

    assert session.execute("SELECT count(*) FROM outbox.ready").fetchone() == (0,)


def test_retention_leaves_its_callers_patience_alone(
    session: Connection, emptied_database: str
) -> None:
    """Only for the lock on a slot does it wait 50 ms and no longer."""
    commit_rows(emptied_database)
    settle_all(session)
    age(session, timedelta(days=9))

    with session.transaction():
        session.execute("SET LOCAL lock_timeout = '7s'")
        purge(session)
        assert count(session) == 0
        assert session.execute("SHOW lock_timeout").fetchone() == ("7s",)


@pytest.mark.parametrize("reason", ["claimed", "many"])
def test_a_slot_that_is_kept_is_not_locked(
    session: Connection, emptied_database: str, reason: str
) -> None:
    """Whoever works in it need not wait for the end of a transaction that does nothing there."""
    commit_rows(emptied_database, 10_001 if reason == "many" else 1)
    if reason == "claimed":
        session.execute("UPDATE outbox.ready SET lease_until = now() + interval '1 hour'")
    age(session, timedelta(days=9))

    with session.transaction():
        purge(session)
        locks = session.execute(
            "SELECT relation::regclass::text FROM pg_locks"
            " WHERE mode = 'AccessExclusiveLock' AND relation IS NOT NULL"
        ).fetchall()

    assert locks == []


def test_a_message_from_before_the_bounds_is_kept(
    session: Connection, emptied_database: str
) -> None:
    """Retention keeps it as it is, and goes on with the others."""
    check = "CHECK (octet_length(VALUE::text) <= 131072) NOT VALID"
    with session.transaction():
        session.execute("ALTER DOMAIN outbox.declare DROP CONSTRAINT declare_is_short")
        session.execute(INSERT_OLD, ["large", f'["{"x" * 131_072}"]'])
        session.execute(f"ALTER DOMAIN outbox.declare ADD CONSTRAINT declare_is_short {check}")

    purge(session)

    assert ids_in(emptied_database, "pending") == {"large"}


def purge_all(connection: Connection, older_than: str = "7 days", *, exact: bool = False) -> int:
    """Run retention to its end, each portion a transaction; how many portions there were."""
    portions = 0
    while purge(connection, older_than, exact=exact):
        portions += 1
        restored = connection.execute("SELECT outbox.restore_work()").fetchone()
        assert restored == (0,), "what was sent is to be sent again"
    return portions


def rows_read(connection: Connection) -> int:
    """How many rows of messages this session has read, as far as is not yet reported."""
    row = connection.execute(
        "SELECT sum(idx_tup_fetch + coalesce(seq_tup_read, 0))"
        " FROM pg_stat_xact_user_tables WHERE relname ~ '^message_[0-9]'"
    ).fetchone()
    assert row is not None
    return int(row[0])


class TestPortions:
    """However much there is to forget, and whatever stays, a call costs the same."""

    def test_endings_go_in_portions(self, session: Connection) -> None:
        """Tens of millions of them, when somebody lowers the retention."""
        session.execute(
            "INSERT INTO outbox.receipt (slot, sent_at, span, ids)"
            " SELECT 0, now() - interval '9 days', int8range(-i, -i, '[]'), ARRAY[-i]"
            " FROM generate_series(1, 4500) i"
        )
        session.execute(
            "INSERT INTO outbox.expiry (id, slot, expired_at)"
            " SELECT -i, 0, now() - interval '9 days' FROM generate_series(1, 10500) i"
        )

        assert purge_all(session) >= 2

        left = "SELECT (SELECT count(*) FROM outbox.receipt), (SELECT count(*) FROM outbox.expiry)"
        assert session.execute(left).fetchone() == (0, 0)

    def test_single_messages_go_in_portions(
        self, session: Connection, emptied_database: str
    ) -> None:
        """Those of a slot in use, past what is not sent."""
        pending = commit_rows(emptied_database, 50)
        session.execute("UPDATE outbox.ready SET lease_until = 'infinity'")
        commit_rows(emptied_database, 10_500)
        session.execute(
            "UPDATE outbox.ready SET lease_until = now() WHERE lease_until = 'infinity'"
        )
        session.execute(
            "WITH done AS (DELETE FROM outbox.ready r USING outbox.message m"
            " WHERE m.id = r.id AND m.message_id <> ALL (%s) RETURNING r.id, r.slot)"
            " INSERT INTO outbox.receipt (slot, span, ids)"
            " SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM done GROUP BY 1",
            [pending],
        )

        assert purge_all(session, "0", exact=True) >= 2

        assert count(session) == 50
        assert ids_in(emptied_database, "pending") == set(pending)

    def test_what_is_not_sent_moves_in_portions(
        self, session: Connection, emptied_database: str
    ) -> None:
        """A thousand at a time, until their slot can be emptied."""
        sent = commit_rows(emptied_database, 5)
        settle_all(session)
        commit_rows(emptied_database, 2_500)
        age(session, timedelta(days=9), slots=3)

        assert purge_all(session) >= 3

        assert states(emptied_database)["pending"] == 2_500
        assert ids_in(emptied_database, "sent").isdisjoint(sent)

    def test_large_dead_letters_move_one_by_one(
        self, session: Connection, emptied_database: str
    ) -> None:
        """Sixteen megabytes a portion, or one message."""
        commit_rows(emptied_database, 4, body=os.urandom(9 << 20))
        session.execute(
            "WITH failed AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.parked (id, slot, state, available_at)"
            " SELECT id, slot, 'dead', now() FROM failed"
        )
        age(session, timedelta(days=9), slots=3)
        slot = session.execute("SELECT slot FROM outbox.parked LIMIT 1").fetchone()
        moved = []
        while purge(session):
            left = "SELECT count(*) FROM outbox.message WHERE slot = %s"
            moved.append(session.execute(left, slot).fetchone())

        assert moved[:4] == [(3,), (2,), (1,), (0,)]
        assert states(emptied_database)["dead"] == 4

    def test_one_slot_holds_up_no_other(self, session: Connection, emptied_database: str) -> None:
        """A relay holds a message of the one; the other is emptied."""
        commit_rows(emptied_database, 1)
        session.execute("UPDATE outbox.ready SET lease_until = now() + interval '1 hour'")
        age(session, timedelta(days=9), slots=2)
        commit_rows(emptied_database, 3)
        session.execute(
            "WITH done AS (DELETE FROM outbox.ready WHERE lease_until < now() RETURNING id, slot)"
            " INSERT INTO outbox.receipt (slot, span, ids)"
            " SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM done GROUP BY 1"
        )
        age(session, timedelta(days=9), slots=1)

        purge_all(session)

        assert count(session) == 1

    def test_an_old_message_among_young_ones_is_passed_once(
        self, session: Connection, emptied_database: str
    ) -> None:
        """A reminder of long ago shares its slot with all that was sent since."""
        commit_rows(emptied_database, available_in=3600)
        session.execute("UPDATE outbox.message SET created_at = created_at - interval '30 days'")
        commit_rows(emptied_database, 20_000)
        settle_all(session)
        purge_all(session)

        with session.transaction():
            before = rows_read(session)
            purge(session)
            read = rows_read(session) - before

        assert read < 200
        assert states(emptied_database)["scheduled"] == 1


MOVES = {
    "promotion": (
        "parked",
        "WITH due AS (DELETE FROM outbox.parked RETURNING id, slot)"
        " INSERT INTO outbox.ready (id, slot) SELECT id, slot FROM due",
    ),
    "parking": (
        "ready",
        "WITH failed AS (DELETE FROM outbox.ready RETURNING id, slot)"
        " INSERT INTO outbox.parked (id, slot, state, available_at)"
        " SELECT id, slot, 'retry', now() FROM failed",
    ),
}


@pytest.mark.parametrize(("source", "move"), MOVES.values(), ids=MOVES)
def test_a_relay_at_work_meanwhile_loses_nothing(
    session: Connection, emptied_database: str, source: str, move: str
) -> None:
    """Work moves between the two tables while its slot is emptied: it stays findable."""
    (message_id,) = commit_rows(emptied_database)
    if source == "parked":
        session.execute(MOVES["parking"][1])
    age(session, timedelta(days=9))
    purging = threading.Thread(target=lambda: _purge_elsewhere(emptied_database))
    with psycopg.connect(emptied_database) as relay:
        relay.execute(move.encode())
        purging.start()
        wait_until(
            lambda: not purging.is_alive() or _waiting(session), 10, "retention to meet the relay"
        )
        relay.commit()
    purging.join()

    assert ids_in(emptied_database, "pending") == {message_id}


def test_retention_beside_change_data_capture(own_postgres: OwnPostgres) -> None:
    """A slot that is far behind keeps nothing from going, and is told of all that went."""
    url = migrated_database(own_postgres({"wal_level": "logical"}))
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        session.execute("SELECT pg_create_logical_replication_slot('capture', 'pgoutput')")
        commit_rows(url, 3000)
        settle_all(session)
        (unsent,) = commit_rows(url, available_in=3600)
        age(session, timedelta(days=9))
        sent = commit_rows(url, 5)
        settle_all(session)

        purge_all(session)
        purge_all(session, "0", exact=True)

        assert ids_in(url, "scheduled") == {unsent}
        assert count(session) == 1
        assert session.execute("SELECT count(*) FROM outbox.receipt").fetchone() == (1,)
        captured = session.execute(CAPTURED).fetchall()
        kinds = {kind for (kind,) in captured}
        assert {b"I", b"U", b"D", b"T"} <= kinds, "inserted, updated, deleted, truncated"
        assert sum(kind == b"I" for (kind,) in captured) >= 3000 + 1 + len(sent)
        assert session.execute(CAPTURED).fetchall() == []


def _purge_elsewhere(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        purge(connection)


def _waiting(session: Connection) -> bool:
    row = session.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return row is not None and bool(row[0])
