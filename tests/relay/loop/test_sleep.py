"""A relay with nothing to do sleeps, and what is committed wakes it, whatever happens meanwhile."""

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.fixtures.broker import Broker, frozen_queue
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import commit_rows, insert_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 30.0
QUEUE = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'

#: Whether somebody holds a lock of the doorbell alone.
_HELD = """
SELECT count(*) FROM pg_locks l, outbox.bell() b
WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted
  AND (l.classid::bigint << 32 | l.objid::bigint) = b.bell
"""

StartRelay = Callable[..., Relay]


@pytest.fixture
def start(relay: RelayFactory, database: str, broker: Broker) -> StartRelay:
    """Start a relay between the fresh database and virtual host."""

    def start(**changes: str) -> Relay:
        usual = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
        return relay(**{**usual, **changes})

    return start


def sleepers(database: str) -> int:
    """How many relays sleep."""
    with psycopg.connect(database) as connection:
        row = connection.execute(_HELD).fetchone()
    assert row
    return int(row[0])


def wait_for_sleep(database: str) -> None:
    """Wait until a relay has lain down."""
    wait_until(lambda: sleepers(database) == 1, DEADLINE, "a relay to lie down")


def wait_for_sent(database: str, count: int) -> None:
    """Wait until so many are sent."""
    wait_until(lambda: states(database)["sent"] == count, DEADLINE, f"{count} sent")


@pytest.mark.parametrize("columns", [{}, {"ordering_key": "a"}, {"available_in": 0.5}])
def test_what_is_committed_wakes_it(
    start: StartRelay, database: str, columns: dict[str, Any]
) -> None:
    """Again and again: a message, one in a lane, and one that is due in a moment."""
    start()
    for sent in range(1, 4):
        wait_for_sleep(database)
        commit_rows(database, 1, declare=QUEUE, **columns)
        wait_for_sent(database, sent)


def test_a_commit_that_took_long_is_not_slept_over(start: StartRelay, database: str) -> None:
    """Rows of a transaction that was open before, with lower ids than what was sent meanwhile."""
    start()
    wait_for_sleep(database)
    with psycopg.connect(database) as slow:
        insert_rows(slow, declare=QUEUE)
        for sent in range(1, 3):
            commit_rows(database, 1, declare=QUEUE)
            wait_for_sent(database, sent)

    wait_for_sent(database, 3)
    wait_for_sleep(database)


def test_another_relay_takes_over(start: StartRelay, database: str) -> None:
    """Of two idle relays one is rung; when it is killed, the other one is."""
    relays = [start() for _ in range(2)]
    wait_for_sleep(database)
    first = relays.pop(0)
    first.process.kill()
    first.process.wait()

    wait_for_sleep(database)
    commit_rows(database, 5, declare=QUEUE)
    wait_for_sent(database, 5)


def test_a_sleeper_ends_when_told(start: StartRelay, database: str) -> None:
    """As one that is awake does."""
    relay = start()
    wait_for_sleep(database)

    relay.process.send_signal(signal.SIGTERM)

    assert relay.process.wait(DEADLINE) == 0


def test_nobody_rings_while_the_broker_is_away(
    start: StartRelay, database: str, broker: Broker
) -> None:
    """A relay that waits for its broker is awake, and costs producers nothing."""
    start()
    wait_for_sleep(database)
    broker.node.delete_vhost(broker.vhost)
    wait_until(lambda: sleepers(database) == 0, DEADLINE, "the sleeper to get up")
    commit_rows(database, 1, declare=QUEUE)

    broker.node.create_vhost(broker.vhost)
    wait_for_sent(database, 1)


def test_it_sleeps_while_messages_wait_for_a_token(
    start: StartRelay, database: str, broker: Broker
) -> None:
    """And gets up for each, without being called; a limit that is changed calls it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT outbox.set_rate(1, burst => 1, everything => true)")
        start()
        commit_rows(database, 3, declare=QUEUE)
        wait_for_sleep(database)
        wait_for_sent(database, 3)

        connection.execute("SELECT outbox.set_rate(0.001, burst => 1, everything => true)")
        commit_rows(database, 3, declare=QUEUE)
        wait_until(lambda: states(database)["pending"] == 3, DEADLINE, "all held")
        wait_for_sleep(database)
        connection.execute("SELECT outbox.set_rate(1000, everything => true)")
        wait_for_sent(database, 6)


def test_it_sleeps_while_a_queue_hangs(start: StartRelay, database: str, broker: Broker) -> None:
    """And keeps its claim of what it has sent there; other messages wake it, and the answer."""
    broker.declare("frozen")
    relay = start(OUTBOX_LEASE="1s")
    with frozen_queue(broker, "frozen"), psycopg.connect(database, autocommit=True) as connection:
        commit_rows(database, 1, routing_key="frozen")
        wait_until(lambda: "in_flight_messages 1.0" in relay.metrics(), DEADLINE, "it in flight")
        for sent in range(1, 4):
            wait_for_sleep(database)
            commit_rows(database, 1, declare=QUEUE)
            wait_for_sent(database, sent)
        wait_for_sleep(database)
        row = connection.execute("SELECT lease_until FROM outbox.ready").fetchone()
        assert row
        renewed = "SELECT FROM outbox.ready WHERE lease_until > %s + interval '2 seconds'"
        wait_until(lambda: connection.execute(renewed, row).rowcount, DEADLINE, "renewals")
        assert sleepers(database) == 1

    wait_for_sent(database, 4)
    assert broker.depth("frozen") == 1


def test_it_sleeps_while_messages_wait_for_room(
    start: StartRelay, database: str, broker: Broker
) -> None:
    """And gets up once workers have taken some."""
    start(OUTBOX_MAX_DEPTH="5")
    commit_rows(database, 8, declare=QUEUE)
    wait_for_sent(database, 5)
    wait_for_sleep(database)

    assert len(broker.take_all("celery")) == 5
    wait_for_sent(database, 8)


def test_it_sleeps_while_a_queue_that_is_full_is_left_alone(
    start: StartRelay, database: str, broker: Broker
) -> None:
    """And gets up for each probe; the one that is confirmed brings the others."""
    broker.declare("narrow", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    start(OUTBOX_RETRY_DELAY="1s")
    commit_rows(database, 6, routing_key="narrow")
    wait_for_sent(database, 1)
    wait_for_sleep(database)

    for sent in range(1, 6):
        assert len(broker.take_all("narrow")) == 1
        wait_for_sent(database, sent + 1)
        wait_for_sleep(database)


def test_it_says_why_it_cannot_sleep(
    start: StartRelay, database: str, pooler: Callable[[str], str]
) -> None:
    """Behind a pooler it polls, as it always did."""
    relay = start(OUTBOX_DATABASE_URL=pooler("session"))
    wait_until(lambda: relay.events("doorbell_off"), DEADLINE, "the reason")

    commit_rows(database, 1, declare=QUEUE)
    wait_for_sent(database, 1)
    assert relay.events("doorbell_off")[0]["reason"] == "a pooler is in between"
