"""Depths over AMQP: a queue that hangs, or is not there, costs the others nothing."""

from contextlib import closing

import pytest

from outbox_relay.broker.amqp import sounder
from outbox_relay.broker.amqp.check.depth import depths
from outbox_relay.broker.amqp.sounder import AmqpSounder
from outbox_relay.broker.sounder import Told
from outbox_relay.core.depth import Depth
from tests.fixtures.broker import Broker, frozen_queue

QUEUES = ["before", "hangs", "nowhere", "after"]


@pytest.fixture
def queues(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """Three of them, and little patience."""
    for queue in ("before", "hangs", "after"):
        broker.declare(queue)
    monkeypatch.setattr(sounder, "WITHIN", 0.2)
    return broker


def test_a_queue_that_hangs_is_silent_and_the_others_answer(queues: Broker) -> None:
    """As often as they are asked, though each question to it costs a channel."""
    empty = {"before": 0, "after": 0}
    with closing(AmqpSounder(queues.url)) as asked:
        with frozen_queue(queues, "hangs"):
            for _ in range(sounder.MAX_LEFT + 3):
                told = asked.read(QUEUES)
                assert told == Told(empty, frozenset({"nowhere"}), frozenset({"hangs"}))
        assert asked.read(["hangs"]) == Told({"hangs": 0})


def test_a_look_that_takes_long_ends(queues: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did not come to is in none of its answers."""
    monkeypatch.setattr(sounder, "LOOK_WITHIN", 0.1)
    with closing(AmqpSounder(queues.url)) as asked, frozen_queue(queues, "hangs"):
        assert asked.read(["hangs", "after"]) == Told(silent=frozenset({"hangs"}))


def test_others_are_counted_beside_a_queue_that_hangs(
    queues: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which it is said that it is there."""
    monkeypatch.setattr("outbox_relay.broker.amqp.check.probe.CONNECT_TIMEOUT", 0.2)
    with frozen_queue(queues, "hangs"):
        assert depths(queues.url, QUEUES) == [
            Depth("before", 0, 0),
            Depth("hangs", 0, None, silent=True),
            Depth("after", 0, 0),
        ]
