"""What a relay counts, and whether anything is left to do."""

from collections.abc import Iterator
from dataclasses import asdict
from math import isnan

import psycopg
import pytest
from psycopg import IsolationLevel

from outbox_migrations import grant
from outbox_relay.postgres.counting import Counter
from outbox_relay.postgres.store import Store
from servers import Postgres
from tests.fixtures.rows import commit_rows, insert_rows
from tests.fixtures.waiting import wait_until
from tests.relay.postgres.steps import claim, parked, settle


@pytest.fixture
def counter(request: pytest.FixtureRequest) -> Iterator[Counter]:
    """What counts in the test's database."""
    own = "database" in request.fixturenames
    counter = Counter.connect(
        request.getfixturevalue("database" if own else "emptied_database"), "outbox", 5
    )
    yield counter
    counter.close()


def test_stats_count_the_states(emptied_database: str, store: Store, counter: Counter) -> None:
    """Pending includes what waits for another attempt."""
    commit_rows(emptied_database, 4)
    commit_rows(emptied_database, 2, available_in=3600)
    first, second, third, _ = claim(store)
    store.park([parked(first, delay=60.0), parked(second, "dead")])
    settle(store, [third])

    stats = counter.stats()

    assert (stats.pending, stats.scheduled, stats.dead) == (2, 2, 1)
    assert stats.oldest_pending_age >= 0


def test_an_empty_outbox_has_no_lag(counter: Counter) -> None:
    """Nought, not null."""
    assert asdict(counter.stats()) == {
        "pending": 0,
        "scheduled": 0,
        "dead": 0,
        "oldest_pending_age": 0.0,
    }


def test_the_upkeep_follows_the_tables(database: str, store: Store, counter: Counter) -> None:
    """Sizes in bytes, and dead rows as the server's own statistics count them."""
    with psycopg.connect(database) as owner:  # an earlier test may have left an empty page
        owner.execute("TRUNCATE outbox.ready, outbox.parked")
    assert counter.upkeep().ready_bytes == 0

    commit_rows(database, 50)
    settle(store, claim(store))

    def dead() -> int:
        with psycopg.connect(database) as other:
            if other.info.server_version >= 150000:  # older ones tell within a second
                other.execute("SELECT pg_stat_force_next_flush()")
        return counter.upkeep().ready_dead_tuples

    wait_until(lambda: dead() >= 50, 10, "50 dead rows in the statistics")
    assert counter.upkeep().ready_bytes > 0
    assert counter.upkeep().parked_bytes == 0


@pytest.mark.parametrize("level", list(IsolationLevel)[1:])
def test_what_holds_the_horizon_is_noticed(
    database: str, counter: Counter, level: IsolationLevel
) -> None:
    """A transaction that still sees the past, whether it has written or not."""
    assert counter.upkeep().horizon_age == 0
    with psycopg.connect(database) as idle:
        idle.isolation_level = level
        if level is IsolationLevel.READ_COMMITTED:
            insert_rows(idle)  # reading alone holds nothing between statements
        else:
            idle.execute("SELECT count(*) FROM outbox.pending")
        assert counter.upkeep().horizon_age > 0
    wait_until(lambda: counter.upkeep().horizon_age == 0, 10, "an end of it")


def test_a_horizon_that_may_not_be_seen_is_unknown(database: str, postgres: Postgres) -> None:
    """Not zero: nobody should believe that all is well."""
    grant(database)
    with psycopg.connect(database) as admin:
        admin.execute("DROP ROLE IF EXISTS blindfold")
        admin.execute("CREATE ROLE blindfold LOGIN PASSWORD 'p' IN ROLE outbox_relay")
    url = database.replace(f"postgres:{postgres.password}@", "blindfold:p@")
    counter = Counter.connect(url, "outbox", statement_timeout=5)
    try:
        assert isnan(counter.upkeep().horizon_age)
        with psycopg.connect(database) as admin:
            admin.execute("GRANT pg_read_all_stats TO blindfold")
        assert not isnan(counter.upkeep().horizon_age)
    finally:
        counter.close()


def test_what_is_due_is_left(emptied_database: str, store: Store) -> None:
    """Claimed, refused or overdue rows are; dead, sent and future ones are not."""
    commit_rows(emptied_database, available_in=3600)
    assert not store.anything_left()
    commit_rows(emptied_database, 2)
    first, second = claim(store)
    assert store.anything_left()

    store.park([parked(first, delay=60.0)])
    settle(store, [second])
    assert store.anything_left()

    store.promote(1000)
    with psycopg.connect(emptied_database) as connection:
        connection.execute("UPDATE outbox.parked SET state = 'dead' WHERE state = 'retry'")
    assert not store.anything_left()
