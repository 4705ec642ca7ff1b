"""Ordering keys from end to end: in each queue the messages of a key are in order, through a kill.

A message whose confirm was under way when its relay was killed is there twice, one after the other;
no message is ever behind a later one of its key.
"""

import base64
import json
from collections.abc import Callable
from itertools import groupby

import psycopg
import pytest
import redis

from tests.fixtures.broker import Broker
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import insert_rows, states
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
KEYS = [f"order-{number}" for number in range(5)]
ROUNDS = 30
QUEUE = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'
HASTE = {"OUTBOX_WINDOW": "200", "OUTBOX_BATCH_SIZE": "50", "OUTBOX_LEASE": "1s"}

StartRelay = Callable[[str], Relay]


def commit_in_turns(url: str) -> list[str]:
    """ROUNDS messages of each key, in turns, and as many without one: each body says which."""
    with psycopg.connect(url) as connection:
        for number in range(ROUNDS):
            for key in (*KEYS, None):
                body = f"{key} {number:03}".encode()
                insert_rows(connection, ordering_key=key, body=body, declare=QUEUE)
    return [f"{key} {number:03}" for number in range(ROUNDS) for key in (*KEYS, None)]


def assert_in_order(bodies: list[str], expected: list[str]) -> None:
    """Nothing lost, and per key a sequence in which at most neighbours are alike."""
    assert set(bodies) == set(expected)
    for key in KEYS:
        arrived = [body for body in bodies if body.startswith(f"{key} ")]
        assert [body for body, _ in groupby(arrived)] == sorted(set(arrived))


def sent(url: str) -> int:
    """How many are."""
    return states(url)["sent"]


@pytest.fixture
def start(relay: RelayFactory, database: str) -> StartRelay:
    """Start a relay to a broker."""
    return lambda broker: relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker, **HASTE)


def test_order_survives_a_killed_relay(start: StartRelay, database: str, broker: Broker) -> None:
    """Two relays on RabbitMQ; one is killed in the middle, the other goes on in order."""
    expected = commit_in_turns(database)
    victim, survivor = start(broker.url), start(broker.url)
    wait_until(lambda: sent(database) > len(expected) // 3, DEADLINE, "a third")
    victim.kill()
    wait_until(lambda: sent(database) == len(expected), DEADLINE, "the rest")

    assert survivor.stop() == 0
    assert_in_order([m.body.decode() for m in broker.take_all("celery")], expected)


def test_order_holds_on_redis(start: StartRelay, database: str, own_valkey: OwnValkey) -> None:
    """The same, with the other kind of broker."""
    expected = commit_in_turns(database)
    server = own_valkey()
    victim = start(server.url)
    start(server.url)
    wait_until(lambda: sent(database) > len(expected) // 3, DEADLINE, "a third")
    victim.kill()
    wait_until(lambda: sent(database) == len(expected), DEADLINE, "the rest")

    with redis.Redis.from_url(server.url) as client:
        bodies = [envelope_body(each) for each in reversed(client.lrange("celery", 0, -1))]
    assert_in_order(bodies, expected)


def envelope_body(envelope: bytes) -> str:
    """The body within what a worker takes from a list."""
    return base64.b64decode(json.loads(envelope)["body"]).decode()


def test_other_messages_do_not_wait(start: StartRelay, database: str, broker: Broker) -> None:
    """One key's first message is refused again and again; everything else arrives."""
    with psycopg.connect(database) as connection:
        insert_rows(connection, ordering_key="stuck", routing_key="nowhere")
        insert_rows(connection, ordering_key="stuck", declare=QUEUE)
        insert_rows(connection, 20, ordering_key="fine", declare=QUEUE)
        insert_rows(connection, 20, declare=QUEUE)
    start(broker.url)
    wait_until(lambda: sent(database) == 40, DEADLINE, "all but one key")

    assert states(database) == {"pending": 2, "scheduled": 0, "sent": 40, "dead": 0}
