"""A count that takes long, or hangs, holds up no message and no end; it comes back by itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from outbox_relay.loop.counting import Counting
from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.counting import NAME, Counter
from tests.fixtures.broker import Broker
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until
from tests.relay.loop.test_relay import QUEUE, commit, settings, wait_for

DEADLINE = 60.0
#: A count waits for whoever holds this advisory lock.
HELD = 77
SLOW = f"""
CREATE OR REPLACE FUNCTION outbox.rough_count(source regclass, condition text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    counted bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared({HELD});
    EXECUTE format('SELECT count(*) FROM %s WHERE %s', source, condition) INTO counted;
    RETURN counted;
END $$
"""
HANGS = f"""
SELECT EXISTS (
    SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE NOT l.granted AND l.locktype = 'advisory' AND l.objid = {HELD}
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND a.application_name = '{NAME}')
"""
#: Longer than any test: what hangs goes on hanging.
FOREVER = {"OUTBOX_STATEMENT_TIMEOUT": "600s", "OUTBOX_GRACE_PERIOD": "5s"}


@contextmanager
def hanging_counts(database: str, schema: str = "outbox") -> Iterator[None]:
    """Every count of that schema waits until the end of the block."""
    with psycopg.connect(database, autocommit=True) as holder:
        holder.execute(SLOW.replace("outbox.", f"{schema}.").encode())
        holder.execute("SELECT pg_advisory_lock(%s)", (HELD,))
        yield


def wait_for_a_hanging_count(database: str) -> None:
    """Wait until one is seen to wait."""

    def hangs() -> bool:
        with psycopg.connect(database) as other:
            return other.execute(HANGS).fetchone() == (True,)

    wait_until(hangs, DEADLINE, "a count that hangs")


def gauges(relay: Relay) -> dict[str, float]:
    """What is shown, but for labels."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(relay.metrics())
        for sample in family.samples
        if not sample.labels
    }


def wait_shown(relay: Relay, **counts: float) -> None:
    """Wait until the metrics have these numbers of messages."""
    wanted = {f"outbox_{name}_messages": value for name, value in counts.items()}
    wait_until(lambda: gauges(relay).items() >= wanted.items(), DEADLINE, f"{counts} shown")


def test_messages_flow_while_a_count_hangs(
    relay: RelayFactory, database: str, broker: Broker
) -> None:
    """All that is committed meanwhile is published; once it can be counted, the numbers are right.

    And the relay ends within its grace period, whatever hangs.
    """
    commit_rows(database, 3, available_in=3600)
    with hanging_counts(database):
        running = relay(**settings(database, broker.url, **FOREVER))
        wait_for_a_hanging_count(database)

        commit(database, 300)
        wait_for(database, sent=300, pending=0)

        wait_for_a_hanging_count(database)
    wait_shown(running, pending=0, scheduled=3, dead=0)

    with hanging_counts(database):
        commit(database, 1)
        wait_for(database, sent=301)
        wait_for_a_hanging_count(database)
        shown = gauges(running)
        assert shown["outbox_scheduled_messages"] == 3  # as it was counted last
        assert shown["outbox_counts_age_seconds"] > 0
        assert running.stop() == 0


def test_counts_come_back_with_the_database(
    relay: RelayFactory, broker: Broker, own_postgres: OwnPostgres
) -> None:
    """Killed under a count that hangs, and started again: unknown meanwhile, and then right."""
    server = own_postgres()
    database = migrated_database(server)
    commit_rows(database, 2, available_in=3600, declare=QUEUE)
    with psycopg.connect(database, autocommit=True) as holder:
        running = relay(**settings(database, broker.url, **FOREVER))
        wait_shown(running, pending=0, scheduled=2)
        holder.execute(SLOW)
        holder.execute("SELECT pg_advisory_lock(%s)", (HELD,))
        wait_for_a_hanging_count(database)

        server.kill()
        running.wait_for_event("database_lost")
        unknown = gauges(running)
        assert unknown["outbox_scheduled_messages"] != 2
        assert unknown["outbox_counts_age_seconds"] != unknown["outbox_counts_age_seconds"]
    server.start()

    commit_rows(database, 2, available_in=3600, declare=QUEUE)
    wait_shown(running, pending=0, scheduled=4)


def test_one_count_at_a_time(database: str) -> None:
    """While one hangs no other begins, whoever asks; after it they go on, over one connection."""
    opened: list[Counter] = []

    def connect() -> Counter:
        opened.append(Counter.connect(database, "outbox", statement_timeout=600))
        return opened[-1]

    metrics = Metrics()
    metrics.database_found()
    counting = Counting(connect, metrics)

    def shown() -> float | None:
        return metrics.registry.get_sample_value("outbox_scheduled_messages")

    with hanging_counts(database):
        counting.begin_if_due(0.0)
        wait_for_a_hanging_count(database)
        counting.soon()
        counting.begin_if_due(1.0)
        counting.begin_if_due(1000.0)
    wait_until(lambda: shown() == 0, DEADLINE, "the end of the count")
    commit_rows(database, 2, available_in=3600)

    def counted_again() -> bool:
        counting.soon()
        counting.begin_if_due(2000.0)
        return shown() == 2

    wait_until(counted_again, DEADLINE, "the next count")
    counting.close()
    assert len(opened) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER VIEW outbox.stats RENAME TO statistics",
        "CREATE OR REPLACE FUNCTION outbox.rough_count(source regclass, condition text)"
        " RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / 0; END $$",
    ],
    ids=["missing", "raising"],
)
def test_what_cannot_be_counted_hides_nothing_else(database: str, statement: str) -> None:
    """It is named in the log once a minute; sizes and pauses are shown."""
    with psycopg.connect(database) as owner:
        owner.execute(statement.encode())
    metrics = Metrics()
    metrics.database_found()
    counting = Counting(lambda: Counter.connect(database, "outbox", 5), metrics)

    def counted() -> bool:
        counting.soon()
        counting.begin_if_due(0.0)
        return metrics.registry.get_sample_value("outbox_endless_pause_age_seconds") == 0

    with capture_logs() as logged:
        wait_until(counted, DEADLINE, "a count")
        metrics.database_lost()
        metrics.database_found()
        wait_until(counted, DEADLINE, "another count")
        counting.close()

    assert [line["chore"] for line in logged if line["event"] == "chore_failed"] == ["stats"]
