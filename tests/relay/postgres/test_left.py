"""A session that one store leaves is the next one's, on a real Postgres: nothing comes with it."""

from collections.abc import Callable, Iterator

import psycopg
import pytest

from outbox_relay.core.claim import Turn
from outbox_relay.errors import StoreLost
from outbox_relay.postgres.database import LEFT_SECONDS, BoundedConnection
from outbox_relay.postgres.store import Store
from tests.fixtures.pgbouncer import Pooler
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.rows import commit_rows

#: Of one session: its name, its advisory locks, what it listens to, what is prepared.
HELD = """
SELECT application_name,
       (SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory')
FROM pg_stat_activity a WHERE pid = %s
"""

Connect = Callable[..., Store]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect a store to a database, on what another has left."""
    opened: list[Store] = []

    def open_store(url: str, left: BoundedConnection | None = None) -> Store:
        opened.append(Store.connect(url, "outbox", statement_timeout=5, name="ours", left=left))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


def left_by(store: Store) -> BoundedConnection:
    """What a store leaves that has been rung."""
    assert store.bell.watch() is None
    assert store.bell.lie_down()
    session = store.leave()
    assert session is not None
    return session


def test_nothing_of_the_last_one_is_left(database: str, connect: Connect) -> None:
    """No lock, so that another is rung at once; no channel, no plan, and no relay by its name."""
    session = left_by(connect(database))
    with psycopg.connect(database) as other:
        held = other.execute(HELD, [session.info.backend_pid]).fetchone()
    for left in ("pg_listening_channels()", "pg_prepared_statements"):
        assert session.execute(f"SELECT * FROM {left}".encode(), prepare=False).fetchall() == []

    assert held == ("outbox-relay left", 0)


def test_the_next_one_works_as_with_a_new_one(database: str, connect: Connect) -> None:
    """In the same session: it claims, is rung, and leaves it again."""
    session = left_by(connect(database))
    pid = session.info.backend_pid
    commit_rows(database, 3)
    store = connect(database, session)

    assert len(store.round_trip(None, Turn([], 0, 10, 1, 60.0)).rows) == 3
    with psycopg.connect(database) as other:
        assert other.execute(HELD, [pid]).fetchone() == ("ours", 0)
    assert left_by(store) is session


def test_one_that_has_ended_is_replaced(database: str, connect: Connect) -> None:
    """Whoever takes it over notices, and connects anew."""
    session = left_by(connect(database))
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [session.info.backend_pid])
    commit_rows(database, 1)
    store = connect(database, session)

    assert len(store.round_trip(None, Turn([], 0, 10, 1, 60.0)).rows) == 1
    assert session.closed


def test_one_of_another_url_is_not_gone_on_with(database: str, connect: Connect) -> None:
    """The file that names the database was changed meanwhile."""
    session = left_by(connect(database))
    connect(f"{database}?application_name=other", session)

    assert session.closed


def test_a_server_that_is_frozen_is_not_waited_for(
    own_postgres: OwnPostgres, connect: Connect
) -> None:
    """For a moment only: then it is as if there had been no session."""
    server = own_postgres()
    url = migrated_database(server)
    session = left_by(connect(url))
    server.freeze()
    try:
        with pytest.raises(StoreLost):
            connect(url, session)
    finally:
        server.thaw()

    assert session.closed
    assert session.deadline == LEFT_SECONDS


def test_behind_a_pooler_nothing_is_left(pooler: Pooler, connect: Connect) -> None:
    """It gives each transaction whichever session is free."""
    store = connect(pooler("session"))

    assert store.leave() is None


def test_one_that_is_lost_cannot_be_left(database: str, connect: Connect) -> None:
    """Its server has closed it: whoever leaves it is told."""
    session = left_by(connect(database))
    store = connect(database, session)
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [session.info.backend_pid])

    with pytest.raises(StoreLost):
        store.leave()
