"""The doorbell between two real sessions: whoever makes work wakes the relay that sleeps."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from outbox_relay.core.claim import Turn
from outbox_relay.postgres.store import Store
from outbox_relay.settings.values import Doorbell
from tests.fixtures.pgbouncer import Pooler
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.rows import commit_rows, insert_rows
from tests.fixtures.waiting import wait_until

OpenStore = Callable[..., Store]

#: A claim from the head of everything.
TURN = Turn([], 0, 10, 1, 10.0)
SOON = 10.0


@pytest.fixture
def open_store(database: str) -> Iterator[OpenStore]:
    """Open stores on the fresh database, as relays have them."""
    opened: list[Store] = []

    def open_one(url: str = database, doorbell: Doorbell = "auto") -> Store:
        opened.append(Store.connect(url, "outbox", statement_timeout=5, doorbell=doorbell))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    """The store of a relay that is to be rung."""
    store = open_store()
    assert store.bell.watch() is None
    return store


def heard(database: str, work: Callable[[psycopg.Connection[Any]], object]) -> int:
    """How many notifications the commit of some work sends to whoever listens."""
    with psycopg.connect(database, autocommit=True) as listener:
        row = listener.execute("SELECT channel FROM outbox.bell()").fetchone()
        assert row
        listener.execute(f'LISTEN "{row[0]}"')
        with psycopg.connect(database) as connection:
            work(connection)
        listener.execute(f"""NOTIFY "{row[0]}", 'the end'""")
        return next(
            number
            for number, notified in enumerate(listener.notifies(timeout=SOON))
            if notified.payload == "the end"
        )


class TestRinging:
    """What rings a sleeper, and what does not."""

    def test_a_commit_wakes_the_sleeper(self, store: Store, database: str) -> None:
        """And its work is there to be seen."""
        assert store.bell.lie_down()
        commit_rows(database)

        assert store.bell.wait(SOON)
        assert store.has_work(TURN)

    @pytest.mark.parametrize("columns", [{"ordering_key": "a"}, {"available_in": 3600}])
    def test_every_kind_of_message_rings(
        self, store: Store, database: str, columns: dict[str, Any]
    ) -> None:
        """Those that wait in lanes, and those that set a sleeper's alarm."""
        assert store.bell.lie_down()
        commit_rows(database, **columns)

        assert store.bell.wait(SOON)

    def test_an_older_snapshot_rings_as_well(self, store: Store, database: str) -> None:
        """A serializable transaction that began before the relay lay down."""
        with psycopg.connect(database) as connection:
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            connection.execute("SELECT count(*) FROM outbox.message")
            assert store.bell.lie_down()
            insert_rows(connection)
            assert not store.bell.wait(0)

        assert store.bell.wait(SOON)

    def test_what_is_given_another_chance_rings(self, store: Store, database: str) -> None:
        """By outbox.retry and outbox.replay, whoever calls them."""
        for call in ("outbox.retry('none')", "outbox.replay(now())"):
            assert store.bell.lie_down()
            with psycopg.connect(database) as connection:
                connection.execute(f"SELECT {call}")
            assert store.bell.wait(SOON)
            store.bell.get_up()

    def test_a_rollback_rings_nobody(self, store: Store, database: str) -> None:
        """Neither does a savepoint that was undone."""
        assert store.bell.lie_down()

        def undone(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction(force_rollback=True):
                insert_rows(connection)

        assert heard(database, undone) == 0

    def test_nobody_pays_while_no_relay_sleeps(self, store: Store, database: str) -> None:
        """A notification costs every other commit; while relays are awake there is none."""
        assert store.bell.lie_down()
        assert heard(database, insert_rows) == 1
        store.bell.get_up()

        assert heard(database, insert_rows) == 0


class TestLyingDown:
    """When a relay may believe that it will be rung."""

    def test_not_while_an_open_transaction_has_made_work(self, store: Store, database: str) -> None:
        """Its commit would ring nobody; once it is over, the work can be seen."""
        with psycopg.connect(database) as connection:
            insert_rows(connection)
            assert not store.bell.lie_down()

        assert store.bell.lie_down()
        assert store.has_work(TURN)

    def test_what_rang_before_is_no_ring(self, store: Store, database: str) -> None:
        """It can be seen by whoever looks after lying down."""
        assert store.bell.lie_down()
        commit_rows(database)
        assert store.bell.wait(SOON)
        store.bell.get_up()

        assert store.bell.lie_down()
        assert not store.bell.wait(0)

    def test_twice_is_once(self, store: Store, database: str) -> None:
        """One getting up is enough: a lock of a session counts."""
        assert store.bell.lie_down()
        assert store.bell.lie_down()
        store.bell.get_up()

        assert heard(database, insert_rows) == 0


class TestSeveralRelays:
    """One of them is rung."""

    def test_another_takes_over(self, store: Store, open_store: OpenStore) -> None:
        """When the one that was rung is gone."""
        other = open_store()
        other.bell.watch()
        assert (other.bell.watching, other.bell.another_watches) == (False, True)
        assert not other.bell.lie_down()

        store.close()
        # A server lets go of a session's locks a moment after that has gone.
        wait_until(lambda: other.bell.watch() or other.bell.watching, 20, "the place of the first")
        assert (other.bell.watching, other.bell.another_watches) == (True, False)
        assert other.bell.lie_down()


class TestObstacles:
    """Where nothing can be heard, nobody lies down, and the reason is told once."""

    def test_off_is_off(self, open_store: OpenStore) -> None:
        """As it was asked for."""
        bell = open_store(doorbell="off").bell

        assert bell.watch() is None
        assert not bell.watching
        assert not bell.lie_down()

    @pytest.mark.parametrize("mode", ["session", "transaction"])
    def test_a_pooler(self, open_store: OpenStore, pooler: Pooler, mode: str) -> None:
        """It may keep notifications to itself, and locks beyond their session."""
        bell = open_store(pooler(mode)).bell

        assert "pooler" in str(bell.watch())
        assert bell.watch() is None
        assert not bell.watching
        assert not bell.lie_down()

    def test_prepared_transactions(self, open_store: OpenStore, own_postgres: OwnPostgres) -> None:
        """Postgres refuses to prepare a transaction that notifies; unless told, nobody has to."""
        url = migrated_database(own_postgres({"max_prepared_transactions": "5"}))
        bell = open_store(url).bell

        assert "max_prepared_transactions" in str(bell.watch())
        assert not bell.lie_down()

        insisting = open_store(url, doorbell="on").bell
        assert insisting.watch() is None
        assert insisting.lie_down()


def test_a_look_tells_what_is_due_next(store: Store, database: str) -> None:
    """In seconds; None while nothing is scheduled."""
    assert store.look(TURN) == (False, None)
    commit_rows(database, available_in=3600)
    work, due = store.look(TURN)

    assert not work
    assert due is not None
    assert 3000 < due <= 3600
