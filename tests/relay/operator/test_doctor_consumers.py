"""`doctor` and queues that nobody consumes, on real brokers: the commonest trouble there is."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Connection
from redis import Redis

from outbox_relay.configuration import from_environment
from outbox_relay.operator.depths import read
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Cli, Doctor, Outbox, finding

DECLARED = '[{"kind": "queue", "name": "celery", "exchange": {"name": "celery"}}]'


def put(broker: Broker, queue: str, messages: int) -> None:
    """Publish, as a relay would have."""
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        for _ in range(messages):
            producer.publish("{}", routing_key=queue)
    wait_until(lambda: broker.depth(queue) == messages, 10, "the messages")


def test_a_queue_that_nobody_consumes(doctor: Doctor, outbox: Outbox, broker: Broker) -> None:
    """Its depth, and what to correct."""
    broker.declare("celery")
    put(broker, "celery", 3)
    outbox.add_sent()

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "consumers")
    assert "queue 'celery': 3 message(s), and nobody consumes it" in text
    assert "celery worker -Q celery" in text
    assert "outbox.enqueue" in text


def test_an_empty_queue_that_nobody_consumes(
    doctor: Doctor, outbox: Outbox, broker: Broker
) -> None:
    """A warning: nothing waits yet."""
    broker.declare("celery")
    outbox.add_sent()

    assert "nobody consumes it" in finding(doctor(), "warn", "consumers")


def test_a_queue_with_a_consumer(doctor: Doctor, outbox: Outbox, broker: Broker) -> None:
    """All is well, with depth and consumers."""
    broker.declare("celery")
    outbox.add_sent()
    with Connection(broker.url) as connection:
        channel: Any = connection.default_channel
        channel.basic_consume("celery", callback=lambda _: None)

        text = finding(doctor(), "ok", "consumers")

    assert "queue 'celery': 0 message(s), 1 consumer(s)" in text


def test_a_deleted_queue_that_rows_declare_anew(doctor: Doctor, outbox: Outbox) -> None:
    """No error will ever tell of it, so doctor does."""
    outbox.add_sent(declare=DECLARED)

    assert "does not exist, and nobody consumes it" in finding(doctor(), "warn", "consumers")


@contextmanager
def popping(server: Any, *lists: str) -> Iterator[None]:
    """A client that waits for these lists, as a worker does."""
    with Redis.from_url(server.url) as control, Redis.from_url(server.url) as client:
        waits = threading.Thread(target=lambda: client.brpop(list(lists), timeout=60))
        waits.start()
        wait_until(
            lambda: any(each["cmd"] == "brpop" for each in control.client_list()), 10, "the client"
        )
        yield
        control.rpush(lists[0], "goodbye")
        waits.join()


def test_on_redis_without_any_worker(
    cli: Cli, outbox: Outbox, own_valkey: Callable[..., Any]
) -> None:
    """Nobody pops any list: the depth of the queue, over the lists of all its priorities."""
    server = own_valkey()
    outbox.add_sent()
    with Redis.from_url(server.url) as client:
        client.lpush("celery", "a", "b")
        client.lpush("celery\x06\x163", "c")

    answer = cli("doctor", OUTBOX_BROKER_URL=server.url)

    assert answer.code == 1
    text = finding(answer, "problem", "consumers")
    assert "queue 'celery': 3 message(s), and nobody consumes it" in text
    assert "no client of this server pops any list" in text


def test_on_redis_workers_that_wait_for_other_lists(
    cli: Cli, outbox: Outbox, own_valkey: Callable[..., Any]
) -> None:
    """Their prefix is read from what they have bound, and named with the setting to correct."""
    server = own_valkey()
    outbox.add_sent()
    with Redis.from_url(server.url) as client, popping(server, "shop:celery"):
        client.lpush("celery", "a")
        client.sadd("shop:_kombu.binding.celery", "celery\x06\x16\x06\x16celery")

        text = finding(cli("doctor", OUTBOX_BROKER_URL=server.url), "problem", "consumers")

    assert "1 message(s), and nobody consumes it: all 1 client(s)" in text
    assert "under global_keyprefix 'shop:', this relay uses ''" in text
    assert "OUTBOX_BROKER_TRANSPORT_OPTIONS" in text


def test_on_redis_with_a_worker(cli: Cli, outbox: Outbox, own_valkey: Callable[..., Any]) -> None:
    """A line for the route, though Redis does not tell which client takes what."""
    server = own_valkey()
    outbox.add_sent()
    with popping(server, "celery"):
        answer = cli("doctor", OUTBOX_BROKER_URL=server.url)

    assert "queue 'celery': 0 message(s)" in finding(answer, "ok", "consumers")


def test_depths_are_read_of_every_route(outbox: Outbox, broker: Broker, database: str) -> None:
    """Of queues that messages went to, and of the queues that rows declare."""
    broker.declare("celery")
    put(broker, "celery", 2)
    outbox.add_sent(exchange="shop", queue="key", declare=DECLARED)
    settings = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}

    (depth,) = read(from_environment(settings))

    assert (depth.queue, depth.messages, depth.consumers) == ("celery", 2, 0)
