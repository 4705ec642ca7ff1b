"""Very many tasks sent while no worker runs: the queue stays short, and all of it arrives.

`make test-million` sends a million (MILLION=100000 for fewer) on RabbitMQ and on a Valkey of 64 MB,
prints what it measured, and takes a quarter of an hour or so. In place of Celery's workers, which
would take longer than all the rest, somebody takes messages as fast as they come.
"""

import json
import os
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from time import monotonic
from typing import Any, Final, Protocol

import psycopg
import pytest
import redis
from kombu import Connection

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

MANY: Final = int(os.environ.get("MILLION", "1000000"))
QUEUE: Final = "mail"
MB: Final = 1 << 20
PORTION: Final = 20_000
INSERT: Final = """
INSERT INTO outbox.message
    (message_id, task, routing_key, headers, properties, body, content_type, content_encoding)
SELECT 'm' || n, 'shop.mail', %s,
       ('{"lang": "py", "task": "shop.mail", "id": "m' || n || '"}')::json,
       ('{"delivery_mode": 2, "correlation_id": "m' || n || '"}')::json,
       convert_to('[[' || n || ', "somebody@example.org"], {}, {"callbacks": null}]', 'UTF8'),
       'application/json', 'utf-8'
FROM generate_series(%s::int, %s::int) n
"""
HELD: Final = "SELECT count(*) FROM outbox.parked WHERE route = chr(30) || 'depth:mail'"
NOTHING_LEFT: Final = """
SELECT NOT EXISTS (SELECT FROM outbox.ready) AND NOT EXISTS (SELECT FROM outbox.parked)
"""
NUMBER: Final = re.compile(rb"\[\[(\d+)")


@dataclass(frozen=True, slots=True)
class Size:
    """How many messages, how deep the queue may be, and how far the relay goes at a time."""

    total: int
    depth: int
    window: int
    batch: int

    @property
    def patience(self) -> float:
        """Seconds for each step: for the servers, and for so many messages."""
        return 60 + self.total / 500


FEW: Final = Size(3_000, 200, 50, 25)
MILLION: Final = Size(MANY, 10_000, 4_000, 500)
SIZES: Final = [
    pytest.param(FEW, id="few"),
    pytest.param(
        MILLION, id="many", marks=[pytest.mark.long, pytest.mark.timeout(4 * MILLION.patience)]
    ),
]


class Taker(Protocol):
    """Who takes messages, and looks how many there are."""

    def depth(self) -> int:
        """How many are ready."""

    def take(self) -> list[int]:
        """The numbers of some of them."""


class FromRabbit:
    """By a consumer that acknowledges."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connection = Connection(broker.url)
        self._channel: Any = self._connection.channel()
        self._got: list[Any] = []
        self._consuming = False

    def depth(self) -> int:
        """As the broker tells."""
        return self._broker.depth(QUEUE)

    def take(self) -> list[int]:
        """What comes within a moment."""
        if not self._consuming:
            self._channel.basic_qos(0, 2_000, a_global=False)
            self._channel.basic_consume(QUEUE, callback=self._got.append)
            self._consuming = True
        try:
            while len(self._got) < 2_000:
                self._connection.drain_events(timeout=0.05)
        except TimeoutError:
            pass
        if not self._got:
            return []
        self._channel.basic_ack(self._got[-1].delivery_tag, multiple=True)
        numbers = [_number(message.body) for message in self._got]
        self._got.clear()
        return numbers


class FromValkey:
    """From the end of the list that workers take from."""

    def __init__(self, url: str) -> None:
        self.client: Any = redis.Redis.from_url(url)

    def depth(self) -> int:
        """The length of the list."""
        return int(self.client.llen(QUEUE))

    def take(self) -> list[int]:
        """Some."""
        found = self.client.rpop(QUEUE, 2_000) or []
        return [_number(b64decode(json.loads(envelope)["body"])) for envelope in found]


class Most:
    """The highest values seen, a few times a second, until the end."""

    def __init__(self, taker: Taker, memory: Any) -> None:
        self.depth = self.memory = 0
        self._taker, self._memory, self._over = taker, memory, Event()
        self._thread = Thread(target=self._watch, daemon=True)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self.depth = max(self.depth, self._taker.depth())
            self.memory = max(self.memory, self._memory())


def _number(body: bytes | str) -> int:
    found = NUMBER.match(body.encode() if isinstance(body, str) else body)
    assert found is not None
    return int(found[1])


def insert(database: str, total: int) -> None:
    """As many tasks, a portion at a time."""
    with psycopg.connect(database, autocommit=True) as connection:
        for first in range(1, total + 1, PORTION):
            last = min(total, first + PORTION - 1)
            connection.execute(INSERT.encode(), [QUEUE, first, last])


def held(database: str) -> int:
    """How many wait for room."""
    with psycopg.connect(database) as connection:
        row = connection.execute(HELD).fetchone()
    return int(row[0]) if row else 0


def send_and_work_off(
    relay: RelayFactory, database: str, taker: Taker, most: Most, size: Size, **settings: str
) -> str:
    """Workers off, all is sent; workers on, all arrives, once. What was measured, in a line."""
    process = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_WINDOW=str(size.window),
        OUTBOX_BATCH_SIZE=str(size.batch),
        **settings,
    )
    with most.watching():
        began = monotonic()
        insert(database, size.total)

        def all_at_rest() -> bool:
            idle = _value(database, "SELECT NOT EXISTS (SELECT FROM outbox.ready)")
            return idle and taker.depth() + held(database) == size.total

        wait_until(all_at_rest, size.patience, "all sent or set aside")
        aside, waiting, sending = monotonic() - began, held(database), taker.depth()
        arrived: Counter[int] = Counter()

        def all_taken() -> bool:
            arrived.update(taker.take())
            return len(arrived) == size.total

        began = monotonic()
        wait_until(all_taken, size.patience, "all to arrive")
        seconds = monotonic() - began
        wait_until(lambda: _value(database, NOTHING_LEFT), size.patience, "all settled")
    assert not process.events("broker_blocked")
    twice = sum(arrived.values()) - size.total
    assert (min(arrived), max(arrived), twice) == (1, size.total, 0)
    return (
        f"{size.total:,} sent: {sending:,} in the queue and {waiting:,} set aside after "
        f"{aside:.0f} s; most in the queue {most.depth:,}, most memory {most.memory / MB:.1f} MB; "
        f"workers on: all after {seconds:.0f} s, lost 0, twice {twice}"
    )


def _value(database: str, query: str) -> bool:
    with psycopg.connect(database) as connection:
        row = connection.execute(query.encode()).fetchone()
    return bool(row and row[0])


@pytest.mark.parametrize("size", SIZES)
def test_a_queue_of_rabbitmq_stays_short(
    relay: RelayFactory, database: str, broker: Broker, size: Size
) -> None:
    """By OUTBOX_MAX_DEPTH: no more than that, and a window."""
    broker.declare(QUEUE)
    taker = FromRabbit(broker)
    most = Most(FromRabbit(broker), lambda: 0)
    settings = {"OUTBOX_BROKER_URL": broker.url, "OUTBOX_MAX_DEPTH": str(size.depth)}

    told = send_and_work_off(relay, database, taker, most, size, **settings)

    print(f"\nRabbitMQ, OUTBOX_MAX_DEPTH={size.depth}: {told}")
    assert 0 < most.depth <= size.depth + size.window


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limited", [True, False], ids=["depth", "default"])
def test_a_valkey_of_64_mb_stays_free(
    relay: RelayFactory, database: str, own_valkey: OwnValkey, size: Size, limited: bool
) -> None:
    """By OUTBOX_MAX_DEPTH, and with no setting at all by its memory: it never refuses a write."""
    valkey = own_valkey({"maxmemory": "64mb"})
    taker, watcher = FromValkey(valkey.url), FromValkey(valkey.url)
    most = Most(watcher, lambda: int(watcher.client.info("memory")["used_memory"]))
    settings = {"OUTBOX_BROKER_URL": valkey.url}
    if limited:
        settings["OUTBOX_MAX_DEPTH"] = str(size.depth)

    told = send_and_work_off(relay, database, taker, most, size, **settings)

    print(f"\nValkey, 64 MB, {'OUTBOX_MAX_DEPTH' if limited else 'default'}: {told}")
    assert 0 < most.memory < 64 * MB
    assert not limited or 0 < most.depth <= size.depth + size.window
