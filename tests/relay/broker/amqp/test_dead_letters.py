"""A queue of dead letters that drops what is looked at too often is left alone before it does.

RabbitMQ 4 gives every quorum queue a delivery limit; before, only one that asks for it has one.
"""

from contextlib import closing
from typing import Any

import pytest
from kombu import Connection

from outbox_relay.broker.amqp import dead_letters as module
from outbox_relay.broker.amqp.check.probe import Probe
from outbox_relay.broker.amqp.dead_letters import AmqpDeadLetters
from outbox_relay.core.dead_letter import DeadLetter
from tests.fixtures.broker import Broker, frozen_queue
from tests.fixtures.waiting import wait_until

QUEUE = "celery.dead"
QUORUM = {"x-queue-type": "quorum"}
#: Looks that a queue with the limit of RabbitMQ 4 would not bear.
MANY = 25


def is_modern(broker: Broker) -> bool:
    """Whether it is a RabbitMQ 4."""
    with closing(Probe(broker.url)) as probe:
        return not probe.version.startswith("3.")


def bury(broker: Broker, **arguments: Any) -> None:
    """One letter in a queue that is declared like this."""
    broker.declare(QUEUE, **arguments)
    with Connection(broker.url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer().publish("x", QUEUE, headers={"id": "a"}, confirm_timeout=10)


def look(broker: Broker) -> DeadLetter:
    """What a round reads that leaves it where it is."""
    with closing(AmqpDeadLetters(broker.url)) as letters:
        wait_until(lambda: letters.waiting(QUEUE), 20, "the letter back in its place")
        [letter] = letters.read(QUEUE, 10)
        return letter


def test_a_queue_that_hangs_keeps_no_other_waiting(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as not there, and the next one is read."""
    monkeypatch.setattr(module, "WITHIN", 0.2)
    bury(broker)
    broker.declare("hangs.dead")

    with (
        frozen_queue(broker, "hangs.dead"),
        closing(AmqpDeadLetters(broker.url)) as letters,
    ):
        assert letters.waiting("hangs.dead") is None
        assert letters.waiting(QUEUE) == 1
        [letter] = letters.read(QUEUE, 10)
        letters.done([letter])
        assert letters.waiting(QUEUE) == 0


@pytest.mark.parametrize("limit", [{}, {"x-delivery-limit": 20}], ids=["default", "limited"])
def test_it_is_left_alone_in_time(broker: Broker, limit: dict[str, int]) -> None:
    """The letter is told to be in danger while it is still there; nobody needs to look again."""
    if not limit and not is_modern(broker):
        pytest.skip("before RabbitMQ 4 a quorum queue has no limit unless it asks for one")
    bury(broker, **QUORUM, **limit)

    looks = 1
    while not look(broker).endangered:
        looks += 1
        assert looks < MANY

    assert 10 <= looks <= 12
    wait_until(lambda: broker.depth(QUEUE) == 1, 20, "the letter back in its place")


def test_one_without_a_limit_is_looked_at_for_ever(broker: Broker) -> None:
    """As `reliable()` declares it, for the version that it meets."""
    unlimited = {"x-delivery-limit": -1} if is_modern(broker) else {}
    bury(broker, **QUORUM, **unlimited)

    assert not any(look(broker).endangered for _ in range(MANY))
    wait_until(lambda: broker.depth(QUEUE) == 1, 20, "the letter back in its place")


@pytest.mark.parametrize(
    ("arguments", "may"),
    [({}, True), ({**QUORUM, "x-delivery-limit": 20}, False)],
    ids=["classic", "limited"],
)
def test_what_bears_any_number_of_looks_is_known(
    broker: Broker, arguments: dict[str, Any], may: bool
) -> None:
    """A classic queue counts none; a quorum queue that has a limit would drop it in the end."""
    bury(broker, **arguments)

    with closing(AmqpDeadLetters(broker.url)) as letters:
        assert letters.may_look_again(QUEUE) is may
