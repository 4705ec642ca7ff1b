"""With OUTBOX_MAX_DEPTH no queue gets more than that; all that waits arrives once it is taken."""

from collections.abc import Callable

import psycopg
import pytest
import redis

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
LIMIT, WINDOW, ROWS = 200, 50, 2_000
DECLARED = '[{"kind": "queue", "name": "mail", "routing_key": "mail"}]'


def environment(database: str, broker_url: str) -> dict[str, str]:
    """A relay that goes in small steps."""
    return {
        "OUTBOX_DATABASE_URL": database,
        "OUTBOX_BROKER_URL": broker_url,
        "OUTBOX_MAX_DEPTH": str(LIMIT),
        "OUTBOX_WINDOW": str(WINDOW),
        "OUTBOX_BATCH_SIZE": "25",
    }


def held(database: str) -> int:
    """How many messages wait for room in the queue mail."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM outbox.parked WHERE route = chr(30) || 'depth:mail'"
            " AND state = 'retry' AND attempts = 0 AND last_error LIKE 'deep: %'"
        ).fetchone()
    return int(row[0]) if row else 0


def work_off(depth: Callable[[], int], take: Callable[[], int], database: str) -> tuple[int, int]:
    """Take all there is, again and again, until every message is sent; how many, and the most."""
    taken, most = 0, depth()

    def step() -> bool:
        nonlocal taken, most
        most = max(most, depth())
        taken += take()
        return taken >= ROWS

    wait_until(step, DEADLINE, "all to arrive")
    wait_until(lambda: states(database)["pending"] == 0, DEADLINE, "all settled")
    return taken, most


@pytest.mark.parametrize("declared", [True, False])
def test_a_queue_of_rabbitmq_is_held(
    relay: RelayFactory, database: str, broker: Broker, declared: bool
) -> None:
    """Workers off: it stays at the limit, others are sent; workers on: all of it arrives, once."""
    broker.declare("celery")
    if declared:
        broker.declare("mail")
    commit_rows(database, ROWS, routing_key="mail", declare=DECLARED)
    commit_rows(database, 50, routing_key="celery")
    process = relay(**environment(database, broker.url))

    wait_until(lambda: broker.depth("celery") == 50, DEADLINE, "others sent")
    wait_until(lambda: held(database) >= ROWS - LIMIT - WINDOW, DEADLINE, "the rest held")
    wait_until(lambda: broker.depth("mail") >= LIMIT, DEADLINE, "the queue full")
    assert broker.depth("mail") <= LIMIT + WINDOW

    taken, most = work_off(
        lambda: broker.depth("mail"), lambda: len(broker.take_all("mail")), database
    )
    assert (taken, most <= LIMIT + WINDOW) == (ROWS, True)
    assert 'outbox_publish_failures_total{reason="deep"} 0.0' in process.metrics()


def test_a_list_of_redis_is_held(relay: RelayFactory, database: str, own_valkey: OwnValkey) -> None:
    """In the same way."""
    valkey = own_valkey()
    client = redis.Redis.from_url(valkey.url)
    commit_rows(database, ROWS, routing_key="mail")
    relay(**environment(database, valkey.url))

    wait_until(lambda: held(database) >= ROWS - LIMIT - WINDOW, DEADLINE, "the rest held")
    wait_until(lambda: client.llen("mail") >= LIMIT, DEADLINE, "the list full")
    assert client.llen("mail") <= LIMIT + WINDOW

    taken, most = work_off(
        lambda: client.llen("mail"), lambda: len(client.lpop("mail", ROWS) or ()), database
    )
    assert (taken, most <= LIMIT + WINDOW) == (ROWS, True)


def test_a_relay_that_is_killed_while_it_holds(
    relay: RelayFactory, database: str, broker: Broker
) -> None:
    """Its successor goes on where the queue has room, and nothing is lost or forgotten."""
    broker.declare("mail")
    commit_rows(database, ROWS, routing_key="mail")
    first = relay(**environment(database, broker.url))
    wait_until(lambda: held(database) > 0, DEADLINE, "some held")
    first.kill()

    relay(**environment(database, broker.url))
    taken, _ = work_off(
        lambda: broker.depth("mail"), lambda: len(broker.take_all("mail")), database
    )
    assert taken >= ROWS
    assert states(database)["sent"] == ROWS


def test_without_the_setting_what_was_held_is_sent(
    relay: RelayFactory, database: str, broker: Broker
) -> None:
    """A relay that knows of no limit lets it go."""
    broker.declare("mail")
    commit_rows(database, ROWS, routing_key="mail")
    first = relay(**environment(database, broker.url))
    wait_until(lambda: held(database) >= ROWS - LIMIT - WINDOW, DEADLINE, "the rest held")
    first.stop()

    relay(**{**environment(database, broker.url), "OUTBOX_MAX_DEPTH": "off"})
    wait_until(lambda: broker.depth("mail") == ROWS, DEADLINE, "all sent")
