"""The stub broker confirms as a broker does, or the relay would wait for what was never missing."""

from collections.abc import Iterator
from typing import Any

import amqp
import pytest
from kombu.utils.url import parse_url

from bench.programs.stub_broker import stub_brokers

SECONDS = 10


@pytest.fixture
def connection() -> Iterator[Any]:
    """A connection to a stub broker of this test's own."""
    with stub_brokers(1) as [(url, _)]:
        parts: dict[str, Any] = parse_url(url)
        connection: Any = amqp.Connection(
            f"{parts['hostname']}:{parts['port']}", confirm_publish=False
        )
        connection.connect()
        yield connection
        connection.collect()


def confirming(connection: Any) -> tuple[Any, list[int]]:
    """A channel that confirms, and the tags that it has confirmed so far."""
    channel, tags = connection.channel(), []
    channel.confirm_select()
    channel.events["basic_ack"].add(lambda tag, multiple: tags.append(tag))
    return channel, tags


def publish(channel: Any) -> None:
    """One message."""
    channel.basic_publish(amqp.Message("body"), routing_key="queue")


def hear(connection: Any, *wanted: tuple[list[int], int]) -> None:
    """Read confirms until each list ends with its tag."""
    while not all(tags[-1:] == [last] for tags, last in wanted):
        try:
            connection.drain_events(timeout=SECONDS)
        except TimeoutError:
            pytest.fail(f"heard {[tags for tags, _ in wanted]}, wanted {[n for _, n in wanted]}")


def test_each_channel_has_a_count_of_its_own(connection: Any) -> None:
    """Messages on two channels in turn: each is confirmed by its own channel's tag."""
    first, firsts = confirming(connection)
    second, seconds = confirming(connection)

    for _ in range(3):
        publish(first)
        publish(second)
    hear(connection, (firsts, 3), (seconds, 3))
    publish(second)
    hear(connection, (firsts, 3), (seconds, 4))


def test_a_channel_opened_again_counts_from_one(connection: Any) -> None:
    """As when a relay has closed a channel and opens one with the same number."""
    channel, tags = confirming(connection)
    publish(channel)
    hear(connection, (tags, 1))
    number = channel.channel_id
    channel.close()

    channel, tags = confirming(connection)
    assert channel.channel_id == number
    publish(channel)
    hear(connection, (tags, 1))
