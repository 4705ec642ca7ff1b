"""On a real RabbitMQ: what a stored message becomes is what plain Celery's message becomes."""

from typing import Any

import pytest
from celery import Celery
from kombu import Connection as Kombu

from tests.fixtures.broker import Broker, Received
from tests.producer.test_wire_equality import (
    SHAPES,
    captured_by_us,
    on_the_wire,
    prepared,
)


def taken(broker: Broker) -> Received:
    """Return the one message that waits in the test's queue."""
    (received,) = broker.take_all("celery")
    return received


@pytest.mark.parametrize("shape", ["simple", "odd headers", "gzip", "links", "stamps", "string id"])
def test_a_consumer_sees_no_difference(broker: Broker, shape: str) -> None:
    """Consumed from a queue, the two messages are equal in every field."""
    with Kombu(broker.url) as connection:
        app = prepared(Celery("plain", broker=broker.url, set_as_current=False))
        SHAPES[shape](app)
        plain = taken(broker)
        row = captured_by_us(SHAPES[shape])
        channel: Any = connection.default_channel
        channel.basic_publish(on_the_wire(row), exchange=row.exchange, routing_key=row.routing_key)
        ours = taken(broker)

    assert plain == ours
