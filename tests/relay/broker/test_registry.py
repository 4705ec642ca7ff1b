"""Which of several brokers a relay connects to."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from outbox_relay.broker import amqp, registry
from outbox_relay.broker.kind import Connect
from outbox_relay.broker.publisher import Publisher
from outbox_relay.configuration import from_environment
from outbox_relay.errors import BrokerLost
from outbox_relay.settings import Settings

URLS = ("amqp://a", "amqp://b", "amqp://c")


@pytest.fixture
def away() -> set[str]:
    """The brokers that do not answer."""
    return set()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, away: set[str]) -> Any:
    """Connects to one of three; the URL stands for the publisher."""

    def connector(_: Settings) -> Connect:
        def connect(url: str, _options: Mapping[str, Any], _for_suspects: bool) -> Publisher:
            if url in away:
                raise BrokerLost(f"{url} is away")
            return url  # type: ignore[return-value]  # a stand-in

        return connect

    monkeypatch.setattr(registry, "BROKERS", (replace(amqp.BROKER, connector=connector),))
    return registry.publisher_factory(
        from_environment(
            {"OUTBOX_DATABASE_URL": "postgresql://x", "OUTBOX_BROKER_URL": ";".join(URLS)}
        )
    )


def test_the_first_that_answers_is_taken(connect: Any, away: set[str]) -> None:
    """And again after each loss: it may be the one that is meant to do the work."""
    assert connect() == "amqp://a"
    away.add("amqp://a")
    assert connect() == "amqp://b"
    away.clear()
    assert connect() == "amqp://a"


def test_a_node_that_confirms_nothing_is_left(connect: Any, away: set[str]) -> None:
    """For the next one, and the one after that; suspects go to the same one as all others."""
    visited = [connect()] + [connect(elsewhere=True) for _ in range(3)]
    assert visited == ["amqp://a", "amqp://b", "amqp://c", "amqp://a"]
    away.add("amqp://b")
    assert connect(elsewhere=True) == "amqp://c"
    assert connect(for_suspects=True) == "amqp://c"
    assert connect(elsewhere=True) == "amqp://a"
