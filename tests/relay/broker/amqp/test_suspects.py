"""Publishing publisher, to a real RabbitMQ: a message that kills its channel harms no other."""

import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from kombu import Connection

from outbox_relay.broker.amqp.suspects import SuspectPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import Message, Outcomes, Reason, Refusal
from outbox_relay.errors import BrokerLost
from tests.fixtures.broker import Broker, largest_message
from tests.relay.messages import a_message, messages

DEADLINE = 30.0
#: Another user's id: RabbitMQ closes the channel over it, with 406.
POISON: dict[str, Any] = {"properties": b'{"user_id": "somebody-else"}'}
#: Headers beyond the frame size that was agreed: RabbitMQ closes the connection, with 501.
LETHAL: dict[str, Any] = {"headers": json.dumps({"x": "y" * 200_000}).encode()}


@pytest.fixture
def publisher(broker: Broker) -> Iterator[SuspectPublisher]:
    """An isolating publisher with a queue named celery; nothing is reserved."""
    broker.declare("celery")
    topology = Topology(broker.url, declare=True)
    publisher = SuspectPublisher(broker.url, topology, DEADLINE, reserved=frozenset())
    yield publisher
    publisher.close()


def land(publisher: SuspectPublisher) -> Outcomes:
    """Listen until nothing is in flight."""
    everything = Outcomes([], [], [])
    deadline = monotonic() + DEADLINE
    while publisher.in_flight:
        assert monotonic() < deadline, "no confirm came"
        outcomes = publisher.poll(0.05)
        everything.confirmed.extend(outcomes.confirmed)
        everything.refused.extend(outcomes.refused)
    return everything


def ids(refused: list[Refusal]) -> set[int]:
    """Which messages were refused."""
    return {refusal.message.id for refusal in refused}


def mixed(count: int) -> list[Message]:
    """Every third kills its channel."""
    return [m._replace(**POISON) if m.id % 3 == 0 else m for m in messages(count)]


def test_each_dies_alone(publisher: SuspectPublisher, broker: Broker) -> None:
    """In each of ten rounds all good ones are confirmed once, and all bad ones refused with 406."""
    for number in range(1, 11):
        batch = mixed(publisher.max_suspects)
        assert publisher.publish(batch) == []
        outcomes = land(publisher)

        assert {m.id for m in outcomes.confirmed} == {m.id for m in batch if m.id % 3}
        assert ids(outcomes.refused) == {m.id for m in batch if m.id % 3 == 0}
        assert {refusal.reason for refusal in outcomes.refused} == {Reason.REJECTED}
        assert all("406" in refusal.detail for refusal in outcomes.refused)
        assert broker.depth("celery") == number * len(outcomes.confirmed)


def test_a_missing_right_is_told_from_poison(publisher: SuspectPublisher, broker: Broker) -> None:
    """By the reply code, whatever numbers the words hold."""
    with Connection(broker.url) as connection:
        channel: Any = connection.default_channel
        channel.exchange_declare("secret-403", "fanout", durable=True, auto_delete=False)
    broker.ctl("set_permissions", "outbox", ".*", r"^(celery|amq\.default)$", ".*")
    try:
        publisher.publish(
            [
                a_message(id=1, exchange="secret-403", mandatory=False),
                a_message(id=2, properties='{"user_id": "somebody-403"}'),
            ]
        )
        refused = land(publisher).refused
    finally:
        broker.ctl("set_permissions", "outbox", ".*", ".*", ".*")

    assert {r.message.id: r.reason for r in refused} == {1: Reason.FORBIDDEN, 2: Reason.REJECTED}


def test_one_larger_than_the_broker_takes_is_told_from_poison(
    publisher: SuspectPublisher, broker: Broker
) -> None:
    """No further attempt could help it, and the next is not even sent."""
    with largest_message(broker.node, 5000):
        publisher.publish([a_message(id=1, body=b"x" * 5001), a_message(id=2)])
        outcomes = land(publisher)
        (unsent,) = publisher.publish([a_message(id=3, body=b"x" * 5001)])

    assert [m.id for m in outcomes.confirmed] == [2]
    assert [(r.message.id, r.reason) for r in outcomes.refused] == [(1, Reason.TOO_LARGE)]
    assert unsent.reason is Reason.TOO_LARGE


def test_other_refusals_are_what_they_are(publisher: SuspectPublisher) -> None:
    """Unroutable by its return; invalid without ever being sent; the others confirmed."""
    refused = publisher.publish(
        [
            a_message(id=1, routing_key="nowhere"),
            a_message(id=2, headers='{"x": "\\ud800"}'),
            a_message(id=3, declare="[null]"),
            a_message(id=4),
        ]
    )
    outcomes = land(publisher)

    assert {r.message.id: r.reason for r in refused} == {2: Reason.INVALID, 3: Reason.INVALID}
    assert [(r.message.id, r.reason) for r in outcomes.refused] == [(1, Reason.UNROUTABLE)]
    assert [m.id for m in outcomes.confirmed] == [4]


def test_a_connection_that_died_leaves_all_in_doubt(publisher: SuspectPublisher) -> None:
    """Of those on it, any may be the cause: the broker blames none by name."""
    publisher._outbound._encoder._frame_max = 1 << 30

    publisher.publish([a_message(id=1), a_message(id=2, **LETHAL), a_message(id=3)])
    with pytest.raises(BrokerLost) as lost:
        land(publisher)

    assert lost.value.poison
    assert 2 in {m.id for m in publisher.unconfirmed()}


def test_without_a_confirm_the_broker_is_lost(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message is poison; this one may have arrived."""
    broker.declare("celery")
    topology = Topology(broker.url, declare=True)
    publisher = SuspectPublisher(broker.url, topology, confirm_timeout=0.0)
    monkeypatch.setattr(publisher._connection.link, "pump", lambda timeout: b"")
    try:
        publisher.publish(messages(3))
        with pytest.raises(BrokerLost, match="no confirm") as lost:
            land(publisher)

        assert not lost.value.poison
    finally:
        publisher.close()
