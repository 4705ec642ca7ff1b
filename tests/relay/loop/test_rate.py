"""However many relays there are and whatever happens to them, a limit of a rate is kept."""

from time import monotonic

import psycopg
import pytest

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0


@pytest.fixture
def environment(database: str, broker: Broker) -> dict[str, str]:
    """Where a relay finds both, and the queues are."""
    for queue in ("mail", "celery"):
        broker.declare(queue)
    return {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}


def limit(database: str, call: str) -> None:
    """Set one, or end it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"SELECT outbox.set_rate({call})".encode())


@pytest.mark.parametrize("relays", [1, 2])
def test_a_limit_is_kept_by_all_relays_together(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker, relays: int
) -> None:
    """No more than the rate and its burst allow, at any time; others flow; all of it arrives."""
    limit(database, "50, burst => 10, queue => 'mail'")
    commit_rows(database, 300, routing_key="mail")
    commit_rows(database, 500, routing_key="celery")
    began = monotonic()
    for _ in range(relays):
        relay(**environment)

    wait_until(lambda: broker.depth("celery") == 500, DEADLINE, "others sent")

    def all_sent() -> bool:
        depth, elapsed = broker.depth("mail"), monotonic() - began
        assert depth <= 10 + 50 * elapsed + 1
        return depth == 300

    wait_until(all_sent, DEADLINE, "all sent")
    wait_until(lambda: states(database)["pending"] == 0, DEADLINE, "all settled")
    assert states(database)["sent"] == 800


def test_a_limit_that_is_ended_lets_go_what_waits(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker
) -> None:
    """At once, also after the relay that held it was killed."""
    limit(database, "0.01, burst => 1, task => 'shop.*'")
    first = relay(**environment)
    commit_rows(database, 200, routing_key="mail")
    wait_until(lambda: _waiting(database) == 199, DEADLINE, "the rest waits")
    assert broker.depth("mail") == 1
    first.kill()
    relay(**environment)
    commit_rows(database, 10, routing_key="celery", task="other")
    wait_until(lambda: broker.depth("celery") == 10, DEADLINE, "the successor sends")
    assert broker.depth("mail") == 1

    limit(database, "NULL, task => 'shop.*'")
    wait_until(lambda: broker.depth("mail") == 200, DEADLINE, "all sent")


def test_a_bucket_that_a_dead_session_has_locked(
    relay: RelayFactory, environment: dict[str, str], database: str, broker: Broker
) -> None:
    """Only what it is about waits, and goes on as soon as the session is ended."""
    limit(database, "100, burst => 5, queue => 'mail'")
    with psycopg.connect(database) as dead:
        dead.execute("SELECT FROM outbox.bucket FOR UPDATE")
        relay(**environment)
        commit_rows(database, 50, routing_key="mail")
        wait_until(lambda: _waiting(database) == 50, DEADLINE, "all wait")
        commit_rows(database, 100, routing_key="celery")
        wait_until(lambda: broker.depth("celery") == 100, DEADLINE, "others sent")
        assert broker.depth("mail") == 0

    wait_until(lambda: broker.depth("mail") == 50, DEADLINE, "all sent")


def _waiting(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM outbox.parked WHERE route LIKE chr(30) || 'rate:%'"
            " AND state = 'retry' AND attempts = 0 AND last_error LIKE 'rated: %'"
        ).fetchone()
    return int(row[0]) if row else 0
