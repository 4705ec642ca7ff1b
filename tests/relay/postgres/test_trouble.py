"""What goes wrong with a database is told apart: waited out, or ended with a way out."""

from dataclasses import replace

import psycopg
import pytest

from outbox_migrations import downgrade, grant, upgrade
from outbox_relay.core.backlog import History
from outbox_relay.errors import SchemaError, SettingsError, StoreLost
from outbox_relay.postgres.store import Store
from servers import Postgres
from tests.fixtures.rows import commit_rows
from tests.relay.messages import a_message
from tests.relay.postgres.steps import OpenStore, claim, lease, parked, settle


def test_a_terminated_session_is_transient(database: str, open_store: OpenStore) -> None:
    """The next connection works."""
    store = open_store()
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = 'outbox-relay'"
        )

    with pytest.raises(StoreLost):
        lease(store)
    assert lease(open_store()) == []


def test_a_frozen_server_is_given_up(database: str, postgres: Postgres) -> None:
    """A backend that never answers does not hold the relay for ever, and is not used again."""
    store = Store.connect(database, "outbox", statement_timeout=0.1)
    with psycopg.connect(database) as admin:
        ((pid,),) = admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'outbox-relay'"
        ).fetchall()

    with postgres.frozen(pid):
        with pytest.raises(StoreLost):
            lease(store)
        with pytest.raises(StoreLost):
            lease(store)
        store.close()


def test_a_lock_held_too_long_is_transient(database: str) -> None:
    """Somebody's LOCK TABLE ends in a retry, not in a relay that waits."""
    store = Store.connect(database, "outbox", statement_timeout=0.1)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE outbox.ready IN ACCESS EXCLUSIVE MODE")

        with pytest.raises(StoreLost):
            lease(store)
    store.close()


def test_a_read_only_database_is_transient(database: str, open_store: OpenStore) -> None:
    """A standby that will be promoted, or a primary told to be careful: nothing is claimed."""
    commit_rows(database)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            "DO $$ BEGIN EXECUTE format("
            "'ALTER DATABASE %I SET default_transaction_read_only = on', current_database());"
            " END $$"
        )

    with pytest.raises(StoreLost):
        lease(open_store())


def test_nobody_there_is_transient(database: str, postgres: Postgres) -> None:
    """A refused connection, an unknown database or a wrong password may all be corrected."""
    for url in (
        "postgresql://postgres@127.0.0.1:1/postgres",
        postgres.dsn("absent"),
        database.replace(postgres.password, "wrong"),
    ):
        with pytest.raises(StoreLost) as lost:
            Store.connect(url, "outbox", statement_timeout=5)
        assert postgres.password not in str(lost.value)


@pytest.mark.parametrize(
    ("version", "way_out"), [(2, "upgrade the relay"), (0, "outbox-migrate up")]
)
def test_another_schema_version_is_refused(
    database: str, open_store: OpenStore, version: int, way_out: str
) -> None:
    """And it is said which side is behind."""
    with psycopg.connect(database) as admin:
        admin.execute(
            "CREATE OR REPLACE FUNCTION outbox.version() RETURNS integer LANGUAGE sql"
            f" IMMUTABLE AS 'SELECT {version}'"
        )

    with pytest.raises(SchemaError, match=way_out):
        open_store()


def test_tables_made_anew_are_another_history(empty_database: str) -> None:
    """A dump that was restored gives new messages the ids of those that were lost."""

    def history() -> History:
        store = Store.connect(empty_database, "outbox", statement_timeout=5)
        store.close()
        return store.history

    upgrade(empty_database)
    before = history()
    assert history().continues(before)
    downgrade(empty_database)
    upgrade(empty_database)

    assert not history().continues(before)


def test_a_database_that_was_set_back_is_another_history(store: Store) -> None:
    """A snapshot of its disk keeps the timeline, and has come less far."""
    seen = store.read_history()

    assert not replace(seen, position=seen.position - 1).continues(seen)
    assert store.read_history().continues(seen)


def test_a_database_without_the_schema_is_refused(empty_database: str) -> None:
    """The message says how to make it."""
    with pytest.raises(SchemaError, match="outbox-migrate up"):
        Store.connect(empty_database, "outbox", statement_timeout=5)


def test_another_schema_name_is_looked_for(database: str) -> None:
    """A wrong OUTBOX_SCHEMA is a missing schema, not somebody else's."""
    with pytest.raises(SchemaError, match="outbox-migrate up"):
        Store.connect(database, "elsewhere", statement_timeout=5)


def test_a_table_that_vanishes_is_said_to_be_missing(database: str, store: Store) -> None:
    """Also in the middle of the work."""
    with psycopg.connect(database) as admin:
        admin.execute("DROP TABLE outbox.ready CASCADE")

    with pytest.raises(SchemaError, match="outbox-migrate up"):
        lease(store)


def test_a_missing_right_is_said_to_be_missing(database: str, postgres: Postgres) -> None:
    """The message says whom to grant what."""
    with psycopg.connect(database) as admin:
        admin.execute("DROP ROLE IF EXISTS nobody_in_particular")
        admin.execute("CREATE ROLE nobody_in_particular LOGIN PASSWORD 'p'")
        admin.execute("GRANT USAGE ON SCHEMA outbox TO nobody_in_particular")
    url = database.replace(f"postgres:{postgres.password}@", "nobody_in_particular:p@")

    store = Store.connect(url, "outbox", statement_timeout=5)
    with pytest.raises(SchemaError, match="outbox-migrate grant"):
        lease(store)
    store.close()


@pytest.mark.parametrize("table", ["message", "ready"])
def test_what_is_hidden_is_not_taken_for_gone(
    database: str, postgres: Postgres, table: str
) -> None:
    """Row level security ends a relay's statements: work on hidden messages stays."""
    commit_rows(database)
    grant(database)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS blinkers")
        admin.execute("CREATE ROLE blinkers LOGIN PASSWORD 'p' IN ROLE outbox_relay")
        url = database.replace(f"postgres:{postgres.password}@", "blinkers:p@")
        store = Store.connect(url, "outbox", statement_timeout=5)
        admin.execute(f"ALTER TABLE outbox.{table} ENABLE ROW LEVEL SECURITY".encode())

        with pytest.raises(SchemaError, match=f'"{table}": DISABLE ROW LEVEL SECURITY'):
            claim(store)
        assert admin.execute("SELECT count(*) FROM outbox.ready").fetchone() == (1,)
    store.close()


def test_a_malformed_url_names_its_variable() -> None:
    """Also where it came from a file that changed since the start."""
    with pytest.raises(SettingsError, match="OUTBOX_DATABASE_URL"):
        Store.connect("postgresql://[", "outbox", statement_timeout=5)


def test_a_message_that_is_not_there_is_harmless(store: Store) -> None:
    """Settling or parking what was discarded meanwhile changes nothing."""
    settle(store, [a_message(id=12345)])
    store.park([parked(a_message(id=12345))])
    store.forget([a_message(id=12345)])
