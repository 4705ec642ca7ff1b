"""However many relays there are and whatever happens to them, a limit of a rate is kept."""

from random import Random
from time import monotonic
from typing import Any, Final

import psycopg
import pytest

from outbox_relay.core.holds import Hold, key_of
from outbox_relay.core.rates import Rates
from outbox_relay.postgres.holds import Holding
from outbox_relay.postgres.statement import Statement
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
#: So many seconds go by, as far as the limit knows.
PASSES: Final = "UPDATE outbox.bucket SET refilled_at = refilled_at - make_interval(secs => %s)"


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


@pytest.mark.parametrize("burst", [1, 10])
@pytest.mark.parametrize("relays", [1, 2])
def test_a_limit_is_kept_by_all_relays_together(
    relay: RelayFactory,
    environment: dict[str, str],
    database: str,
    broker: Broker,
    relays: int,
    burst: int,
) -> None:
    """No more than the rate and its burst allow, at any time; others flow; all of it arrives."""
    limit(database, f"50, burst => {burst}, queue => 'mail'")
    commit_rows(database, 300, routing_key="mail")
    commit_rows(database, 500, routing_key="celery")
    began = monotonic()
    for _ in range(relays):
        relay(**environment)

    wait_until(lambda: broker.depth("celery") == 500, DEADLINE, "others sent")

    def all_sent() -> bool:
        depth, elapsed = broker.depth("mail"), monotonic() - began
        assert depth <= burst + 50 * elapsed + 1
        return depth == 300

    wait_until(all_sent, DEADLINE, "all sent")
    wait_until(lambda: states(database)["pending"] == 0, DEADLINE, "all settled")
    assert states(database)["sent"] == 800


@pytest.mark.parametrize("burst", [1, 1.5, 20])
@pytest.mark.parametrize("per_second", [0.5, 5, 20])
def test_tokens_of_a_minute(database: str, per_second: float, burst: float) -> None:
    """A minute's worth in a minute, whatever the burst, though its relay comes round late.

    At no time more than the rate and the burst allow.
    """
    key, chance = key_of("rate:all"), Random(burst)
    rates, sent, ahead = Rates(), list[float](), 0.0
    rates.replace([Hold("all", "*", per_second=per_second, burst=burst)])
    rates.found(["rate:all"])
    with psycopg.connect(database, autocommit=True) as connection:
        holding = Holding(lambda statement, asked: _run(connection, statement, asked))
        connection.execute(f"SELECT outbox.set_rate({per_second}, {burst}, everything => true)")
        began = monotonic()
        while (now := monotonic() + ahead) < began + 60:
            if wanted := rates.wanted(now):
                grants = holding.take_tokens(wanted)
                rates.granted(grants, now := monotonic() + ahead)
            if due := rates.wishes(now).get(key):
                rates.claimed([key], [(len(sent) + n, key) for n in range(due)])
                sent += [now] * due
            seconds = max(0.0, rates.pause(now)) + chance.uniform(0, 0.04)
            connection.execute(PASSES.encode(), [seconds])
            ahead += seconds

    assert abs(len(sent) - burst - 60 * per_second) <= max(1, 3 * per_second)
    for count, time in enumerate(sent, 1):
        assert count <= burst + per_second * (time - began) + 1e-6


def _run(
    connection: psycopg.Connection[Any], statement: Statement, asked: dict[str, Any]
) -> list[Any]:
    return connection.execute(statement.in_schema("outbox").text.encode(), asked).fetchall()


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
