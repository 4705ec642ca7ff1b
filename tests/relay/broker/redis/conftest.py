"""Publishers to real servers, always closed, and what a worker would find there."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest
import redis

from outbox_relay.broker.redis.durability import Durability
from outbox_relay.broker.redis.in_doubt import InDoubt
from outbox_relay.broker.redis.publisher import RedisPublisher
from outbox_relay.core.message import Message, Outcomes
from servers import Valkey
from servers.valkey import find_executable
from tests.fixtures.valkey import OwnValkey

OpenPublisher = Callable[..., RedisPublisher]
#: A redis.Redis; redis-py annotates every reply as perhaps awaitable.
Client = Any


@pytest.fixture(autouse=True)
def _knows_waitaof(request: pytest.FixtureRequest) -> None:
    """A test that asks for `waitaof`, or has `fsync` among its parameters, needs Redis 7.2."""
    parameters = getattr(request.node, "callspec", None)
    levels = map(str, parameters.params.values()) if parameters else ()
    if "waitaof" in request.fixturenames or any(level.startswith("fsync") for level in levels):
        asked = [str(find_executable()), "--version"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        found = re.search(r"v=(\d+)\.(\d+)", said)
        if found and (int(found[1]), int(found[2])) < (7, 2):
            pytest.skip(f"Redis {found[1]}.{found[2]} has no WAITAOF, which came with 7.2")


@pytest.fixture
def waitaof() -> None:
    """What fsync is confirmed by."""


@pytest.fixture
def valkey(own_valkey: OwnValkey) -> Valkey:
    """A fresh server."""
    return own_valkey()


@pytest.fixture
def client(valkey: Valkey) -> Iterator[Client]:
    """A second pair of eyes on that server."""
    with redis.Redis.from_url(valkey.url) as client:
        yield client


@pytest.fixture
def open_publisher() -> Iterator[OpenPublisher]:
    """Connect: ``open_publisher(url, confirm="fsync", declare=False, in_doubt=..., **options)``."""
    with ExitStack() as publishers:

        def connect(
            url: str,
            confirm: str = "memory",
            *,
            declare: bool = True,
            in_doubt: InDoubt | None = None,
            confirm_timeout: float = 20.0,
            **options: Any,
        ) -> RedisPublisher:
            publisher = RedisPublisher(
                url,
                options,
                Durability.parse(confirm),
                in_doubt or InDoubt(),
                declare=declare,
                confirm_timeout=confirm_timeout,
            )
            publishers.callback(publisher.close)
            return publisher

        yield connect


def land(publisher: RedisPublisher, seconds: float = 20.0) -> Outcomes:
    """Poll until nothing is in flight; everything that was said meanwhile."""
    said = Outcomes([], [], [])
    deadline = monotonic() + seconds
    while True:
        heard = publisher.poll(0.1)
        said.confirmed.extend(heard.confirmed)
        said.refused.extend(heard.refused)
        said.latencies.extend(heard.latencies)
        if not publisher.in_flight:
            return said
        assert monotonic() < deadline, f"{publisher.in_flight} messages still in flight"


def publish(publisher: RedisPublisher, sent: Sequence[Message]) -> Outcomes:
    """Publish and await every message's fate."""
    refused = publisher.publish(sent)
    said = land(publisher)
    return Outcomes(said.confirmed, refused + said.refused, said.latencies)


def waiting(client: Client, key: str) -> list[dict[str, Any]]:
    """The envelopes in a list, in the order a worker takes them."""
    return [json.loads(each) for each in reversed(client.lrange(key, 0, -1))]
