"""What counts as sent was confirmed: whatever kept a message from getting work, it gets it back."""

from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.rows import ids_in, insert_rows, states
from tests.fixtures.waiting import wait_until

Connection = psycopg.Connection[Any]
NO_PENDING = {"pending": 0, "scheduled": 0, "sent": 0, "dead": 0}
ALL_BUT_THE_ROW = "SELECT to_jsonb(m) - 'id' - 'slot' FROM outbox.message m WHERE message_id = %s"


def confirm_everything(connection: Connection) -> None:
    """Settle what is ready, as a relay would."""
    connection.execute(
        "WITH done AS (DELETE FROM outbox.ready RETURNING id, slot)"
        " INSERT INTO outbox.receipt (slot, span, ids)"
        " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done"
    )


@pytest.fixture
def session(emptied_database: str) -> Any:
    """A session on the emptied database, committing each statement."""
    with psycopg.connect(emptied_database, autocommit=True) as connection:
        yield connection


def test_a_session_without_triggers_makes_work(session: Connection, emptied_database: str) -> None:
    """As restored dumps and migrations insert: session_replication_role = replica."""
    session.execute("SET session_replication_role = replica")
    insert_rows(session, 2)
    insert_rows(session, ordering_key="a")

    assert states(emptied_database) == NO_PENDING | {"pending": 3}
    assert session.execute("SELECT key FROM outbox.lane_news").fetchall() == [("a",)]


def test_work_that_was_lost_is_no_message_sent(session: Connection, emptied_database: str) -> None:
    """Shown as pending at once; each kind gets the work that it had."""
    insert_rows(session)
    confirm_everything(session)
    insert_rows(session)
    insert_rows(session, ordering_key="a")
    insert_rows(session, available_in=3600, ordering_key="a")
    for table in ("ready", "parked", "lane", "lane_news"):
        session.execute(f"DELETE FROM outbox.{table}".encode())

    assert states(emptied_database) == NO_PENDING | {"pending": 3, "sent": 1}
    assert session.execute("SELECT pending FROM outbox.stats").fetchone() == (3,)
    assert session.execute("SELECT outbox.restore_work()").fetchone() == (3,)
    assert states(emptied_database) == NO_PENDING | {"pending": 2, "scheduled": 1, "sent": 1}
    assert session.execute("SELECT key FROM outbox.lane_news").fetchall() == [("a",)]
    assert session.execute("SELECT outbox.restore_work()").fetchone() == (0,)


def test_each_call_goes_on_where_the_last_ended(session: Connection) -> None:
    """However much is kept, a call looks at two portions: the newest, and the next ones."""
    insert_rows(session, 50)
    session.execute(
        "DELETE FROM outbox.ready WHERE id IN (SELECT id FROM outbox.ready ORDER BY id"
        " LIMIT 10 OFFSET 20)"
    )

    found = [session.execute("SELECT outbox.restore_work(10)").fetchone() for _ in range(5)]

    assert found == [(0,), (0,), (10,), (0,), (0,)]


def test_receipts_are_read_once_for_many_messages(session: Connection) -> None:
    """Not for each message by itself: that would hold up the relay whose chore it is."""
    insert_rows(session, 200)
    confirm_everything(session)
    read = "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relid = 'outbox.receipt'::regclass"
    with session.transaction():
        session.execute("SELECT outbox.restore_work()")
        (times,) = session.execute(read).fetchone() or (None,)

    assert times in range(1, 9)


def test_forgotten_receipts_do_not_send_anew(session: Connection, emptied_database: str) -> None:
    """What retention could not delete with its receipt stays sent."""
    insert_rows(session)
    session.execute("UPDATE outbox.message SET created_at = now() - interval '2 days'")
    confirm_everything(session)
    session.execute("SELECT outbox.purge('1 day')")  # writes down how far back it forgets
    insert_rows(session)
    session.execute("UPDATE outbox.message SET created_at = now() - interval '2 days'")
    session.execute("DELETE FROM outbox.ready; DELETE FROM outbox.receipt")

    assert session.execute("SELECT count(*) FROM outbox.receipt").fetchone() == (0,)
    assert session.execute("SELECT outbox.restore_work()").fetchone() == (0,)
    assert states(emptied_database) == NO_PENDING | {"sent": 1}


@pytest.mark.parametrize("behind", ["1 hour", "11 hours 50 minutes"])
def test_a_clock_that_was_set_back_sends_nothing_anew(
    session: Connection, emptied_database: str, behind: str
) -> None:
    """A message that waited meanwhile seems confirmed before it was inserted: it stays sent."""
    insert_rows(session)
    confirm_everything(session)
    session.execute("UPDATE outbox.receipt SET sent_at = now() - interval '1 day 12 hours 1 min'")
    session.execute(
        "UPDATE outbox.message SET created_at = r.sent_at + %s::interval FROM outbox.receipt r",
        [behind],
    )
    session.execute("SELECT outbox.purge('1 day')")

    assert session.execute("SELECT count(*) FROM outbox.receipt").fetchone() == (0,)
    assert session.execute("SELECT outbox.restore_work()").fetchone() == (0,)
    assert states(emptied_database) == NO_PENDING | {"sent": 1}


@pytest.mark.parametrize("key", ["", "k" * 201])
@pytest.mark.parametrize("eta", ["NULL", "now() + interval '1 hour'"])
@pytest.mark.parametrize("kind", ["ordering_key", "dedup_key"])
def test_keys_are_refused_at_insert(session: Connection, kind: str, eta: str, key: str) -> None:
    """Whatever the eta: nothing that a later table would refuse waits in the outbox."""
    columns = f"message_id, task, body, content_type, content_encoding, available_at, {kind}"
    with pytest.raises(errors.CheckViolation, match=f"{kind}_is_short"):
        session.execute(
            f"INSERT INTO outbox.message ({columns}) VALUES ('m', 't', '', 'c', 'e', {eta}, %s)",
            [key],
        )


@pytest.mark.parametrize("time", ["infinity", "-infinity", "0044-03-15 BC", "12000-01-01"])
@pytest.mark.parametrize("column", ["available_at", "expires_at", "created_at"])
def test_times_can_be_shown_and_subtracted(session: Connection, column: str, time: str) -> None:
    """Nothing that Python or an older Postgres cannot compute with."""
    columns = f"message_id, task, body, content_type, content_encoding, {column}"
    with pytest.raises(errors.CheckViolation, match=f"{column}_is_a_time"):
        session.execute(
            f"INSERT INTO outbox.message ({columns}) VALUES ('m', 't', '', 'c', 'e', %s)", [time]
        )


def test_an_expired_message_never_takes_a_fresh_one(session: Connection) -> None:
    """Nobody has noticed yet that the first has expired: the second is stored all the same."""
    send = "SELECT outbox.enqueue('t', task_id => %s, dedup_key => 'k', expires => {})"
    session.execute(send.format("now() - interval '1 s'").encode(), ["old"])

    fresh = session.execute(send.format("NULL").encode(), ["new"]).fetchone()

    assert fresh == ("new",)
    assert session.execute("SELECT count(*) FROM outbox.message").fetchone() == (2,)


@pytest.mark.parametrize("act", ["cancel", "discard", "retry"])
def test_a_number_given_again_touches_no_other_message(session: Connection, act: str) -> None:
    """After a restarted sequence two messages share an id, in different slots."""
    insert_rows(session, message_ids=["first"])
    confirm_everything(session)
    session.execute("UPDATE outbox.message SET slot = (slot + 1) % 16")
    session.execute("ALTER SEQUENCE outbox.message_id_seq RESTART")
    insert_rows(session, message_ids=["second"])

    session.execute(f"SELECT outbox.{act}('first')".encode())

    assert session.execute("SELECT count(*) FROM outbox.ready").fetchone() == (1,)
    assert session.execute("SELECT count(*) FROM outbox.message").fetchone() == (2,)


def test_lanes_need_no_row_of_ours(session: Connection) -> None:
    """A dump of the schema alone brings the tables, not their rows."""
    insert_rows(session, ordering_key="a")
    tables = session.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'outbox'::regnamespace"
        " AND c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_attribute a"
        " WHERE a.attrelid = c.oid AND a.attnum > 0)"
    )

    assert tables.fetchall() == []
    claimed = session.execute("SELECT ids FROM outbox.claim_lanes(0, 10, 1, 10)").fetchone()
    assert claimed is not None
    assert len(claimed[0]) == 1


def same(source: Connection, copy: Connection, query: bytes) -> bool:
    """Whether both answer alike."""
    return source.execute(query).fetchone() == copy.execute(query).fetchone()


def test_change_data_capture_stops_nothing(own_postgres: OwnPostgres) -> None:
    """FOR ALL TABLES and a subscriber: work comes, goes and is forgotten, there as here."""
    server = own_postgres({"wal_level": "logical"})
    here, there = migrated_database(server), migrated_database(server)
    with (
        psycopg.connect(here, autocommit=True) as source,
        psycopg.connect(there, autocommit=True) as copy,
    ):
        insert_rows(source, 3)
        insert_rows(source, 2, ordering_key="a")
        source.execute(
            "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)"
        )
        source.execute("SELECT pg_create_logical_replication_slot('copy', 'pgoutput')")
        copy.execute("DELETE FROM outbox.schema_version; DELETE FROM inbox.schema_version")
        copy.execute(
            f"CREATE SUBSCRIPTION copy CONNECTION '{here}' PUBLICATION everything"
            " WITH (create_slot = false, slot_name = 'copy')".encode()
        )
        try:
            ready = b"SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'"
            wait_until(lambda: not copy.execute(ready).fetchall(), 60, "the first copy")
            assert states(there) == NO_PENDING | {"pending": 5}

            confirm_everything(source)
            source.execute("SELECT * FROM outbox.claim_lanes(0, 10, 1, 10)")
            source.execute("UPDATE outbox.receipt SET sent_at = now() - interval '20 days'")
            source.execute("SELECT outbox.purge('1 day')")

            for table in ("ready", "lane", "lane_news", "receipt", "message"):
                counted = f"SELECT count(*) FROM outbox.{table}".encode()
                there_too = partial(same, source, copy, counted)
                wait_until(there_too, 30, f"the same rows in {table}")
            assert source.execute("SELECT count(*) FROM outbox.receipt").fetchone() == (0,)
        finally:
            copy.execute("ALTER SUBSCRIPTION copy DISABLE")
            copy.execute("ALTER SUBSCRIPTION copy SET (slot_name = NONE)")
            copy.execute("DROP SUBSCRIPTION copy")


class TestIdsGivenTwice:
    """A sequence that was restarted, or an old snapshot, gives the ids of sent messages again."""

    @pytest.fixture
    def twins(self, session: Connection) -> Any:
        """Two messages with one id, made a day apart; the older one is sent."""
        insert_rows(session, message_ids=["old"])
        session.execute(
            "UPDATE outbox.message SET slot = (slot + 1) % 16,"
            " created_at = now() - interval '1 day'"
        )
        session.execute("UPDATE outbox.ready SET slot = (slot + 1) % 16")
        confirm_everything(session)
        session.execute("UPDATE outbox.receipt SET sent_at = now() - interval '23 hours'")
        session.execute("ALTER SEQUENCE outbox.message_id_seq RESTART")
        session.execute(b"SELECT setval('outbox.message_id_seq', id, false) FROM outbox.message")
        insert_rows(session, message_ids=["new"], task="shop.mail")
        assert session.execute("SELECT count(DISTINCT id) FROM outbox.message").fetchone() == (1,)
        return session

    def replay(self, session: Connection, since: str, until: str = "1 second") -> int:
        """Replay what was sent between two times."""
        row = session.execute(
            "SELECT outbox.replay(now() - %s::interval, now() + %s::interval)", [since, until]
        ).fetchone()
        assert row is not None
        return int(row[0])

    @pytest.mark.usefixtures("twins")
    def test_each_is_in_its_own_state(self, emptied_database: str) -> None:
        """The work of one is not the other's."""
        assert ids_in(emptied_database, "pending") == {"new"}
        assert ids_in(emptied_database, "sent") == {"old"}

    def test_the_receipt_of_one_does_not_keep_the_other_from_its_work(
        self, twins: Connection, emptied_database: str
    ) -> None:
        """Its work was lost: it is pending, not sent, and gets it back."""
        twins.execute("DELETE FROM outbox.ready")

        assert ids_in(emptied_database, "pending") == {"new"}
        assert ids_in(emptied_database, "sent") == {"old"}
        assert twins.execute("SELECT outbox.restore_work()").fetchone() == (1,)
        assert twins.execute("SELECT outbox.restore_work()").fetchone() == (0,)
        assert states(emptied_database) == NO_PENDING | {"pending": 1, "sent": 1}

    def test_the_work_of_one_does_not_keep_the_other_from_its_work(
        self, twins: Connection, emptied_database: str
    ) -> None:
        """The older one was never sent, the newer one is scheduled, or sent."""
        twins.execute("DELETE FROM outbox.receipt")
        twins.execute(
            "WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.parked (id, slot, state, available_at)"
            " SELECT id, slot, 'scheduled', now() + interval '1 hour' FROM gone"
        )

        assert twins.execute("SELECT outbox.restore_work()").fetchone() == (1,)
        assert ids_in(emptied_database, "pending") == {"old"}
        assert ids_in(emptied_database, "scheduled") == {"new"}

        twins.execute("DELETE FROM outbox.ready")
        twins.execute("UPDATE outbox.parked SET state = 'retry'")
        twins.execute("SELECT outbox.restore_work()")
        twins.execute("DELETE FROM outbox.parked")
        confirm_everything(twins)
        twins.execute("DELETE FROM outbox.ready")

        assert twins.execute(
            "SELECT EXISTS (SELECT FROM outbox.confirms_of(id, slot)) FROM outbox.message"
            " ORDER BY created_at"
        ).fetchall() == [(True,), (False,)]
        assert twins.execute("SELECT outbox.restore_work()").fetchone() == (1,)
        assert ids_in(emptied_database, "pending") == {"new"}
        assert ids_in(emptied_database, "sent") == {"old"}

    def test_a_clock_that_was_set_back_sends_nothing_anew(
        self, session: Connection, emptied_database: str
    ) -> None:
        """The receipt of the only message with an id is its own, however early."""
        insert_rows(session)
        confirm_everything(session)
        session.execute("UPDATE outbox.receipt SET sent_at = sent_at - interval '1 hour'")

        assert states(emptied_database) == NO_PENDING | {"sent": 1}
        assert session.execute("SELECT outbox.restore_work()").fetchone() == (0,)

    def test_the_sent_one_is_replayed_beside_the_pending_one(
        self, twins: Connection, emptied_database: str
    ) -> None:
        """Once, under a row id of its own; and it can be settled and replayed again."""
        before = twins.execute(ALL_BUT_THE_ROW, ["old"]).fetchall()

        assert self.replay(twins, "2 days") == 1
        assert ids_in(emptied_database, "pending") == {"old", "new"}
        assert twins.execute(ALL_BUT_THE_ROW, ["old"]).fetchall() == before
        assert self.replay(twins, "2 days") == 0

        confirm_everything(twins)
        assert ids_in(emptied_database, "sent") == {"old", "new"}
        assert self.replay(twins, "2 days") == 2
        assert states(emptied_database) == NO_PENDING | {"pending": 2}

    def test_the_receipt_of_one_is_not_the_others(
        self, twins: Connection, emptied_database: str
    ) -> None:
        """Only what was confirmed in the interval is sent again."""
        confirm_everything(twins)

        assert self.replay(twins, "1 hour") == 1
        assert ids_in(emptied_database, "pending") == {"new"}
        confirm_everything(twins)
        assert self.replay(twins, "2 days", "-1 hour") == 1
        assert ids_in(emptied_database, "pending") == {"old"}

    def test_both_are_replayed_at_once(self, twins: Connection, emptied_database: str) -> None:
        """None stands in the other's way; what has an ordering key goes to its lane."""
        twins.execute("UPDATE outbox.message SET ordering_key = 'k' WHERE message_id = 'new'")
        confirm_everything(twins)

        assert self.replay(twins, "2 days") == 2
        assert states(emptied_database) == NO_PENDING | {"pending": 2}
        assert twins.execute("SELECT key FROM outbox.lane").fetchall() == [("k",)]
