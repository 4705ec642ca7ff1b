"""What declarations may do to a relay on a real RabbitMQ: cost the row that asks for them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from outbox_relay.broker.amqp import topology as topology_module
from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import Message, Outcomes, Reason
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until
from tests.relay.messages import a_message, messages

DEADLINE = 30.0


@pytest.fixture
def no_quorum_queues(broker: Broker) -> Iterator[None]:
    """The node answers 541 to whoever declares a quorum queue, and serves all others."""
    key = "rabbit, quorum_cluster_size"
    usual = broker.node.evaluate(f"application:get_env({key})")
    broker.node.evaluate(f"application:set_env({key}, nonsense)")
    yield
    number = usual.strip().removeprefix("{ok,").removesuffix("}")
    broker.node.evaluate(f"application:set_env({key}, {number})")


@pytest.fixture
def publisher(broker: Broker) -> Iterator[AmqpPublisher]:
    """A publisher on the test's virtual host, with a queue named celery."""
    broker.declare("celery")
    publisher = AmqpPublisher(broker.url, Topology(broker.url, declare=True), DEADLINE)
    yield publisher
    publisher.close()


def publish(publisher: AmqpPublisher, *batch: Message) -> Outcomes:
    """Publish and await every message's fate."""
    said = Outcomes([], publisher.publish(batch), [])

    def landed() -> bool:
        heard = publisher.poll(0.05)
        said.confirmed.extend(heard.confirmed)
        said.refused.extend(heard.refused)
        return not publisher.in_flight

    wait_until(landed, DEADLINE, "every fate")
    return said


def queue(name: str, **attributes: object) -> str:
    """The `declare` column for one queue."""
    return json.dumps([{"kind": "queue", "name": name, "routing_key": name, **attributes}])


@pytest.mark.usefixtures("no_quorum_queues")
def test_an_internal_error_over_a_declaration_harms_only_its_row(
    publisher: AmqpPublisher, broker: Broker
) -> None:
    """541 takes the side connection: the others are declared and sent, this one comes back.

    It is what RabbitMQ 4.3 answers to a transient queue.
    """
    quorum = queue("bills", queue_arguments={"x-queue-type": "quorum"})
    doomed = a_message(id=1, routing_key="bills", declare=quorum)
    good = a_message(id=2, routing_key="plain", declare=queue("plain"))

    for _ in range(2):
        said = publish(publisher, doomed, good)

        assert said.confirmed == [good]
        assert [(r.message, r.reason) for r in said.refused] == [(doomed, Reason.UNROUTABLE)]
    assert broker.depth("plain") == 2


def test_declaring_many_queues_takes_turns(
    publisher: AmqpPublisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What there was no time for waits, at no cost; each call declares some, and in the end all."""
    monkeypatch.setattr(topology_module, "PATIENCE", 0.0)
    batch = [
        message._replace(routing_key=f"q{message.id}", declare=queue(f"q{message.id}"))
        for message in messages(3)
    ]
    for left in (2, 1, 0):
        said = publish(publisher, *batch)

        assert [refusal.reason for refusal in said.refused] == [Reason.UNDECLARED] * left
        batch = [refusal.message for refusal in said.refused]
    assert [broker.depth(f"q{number}") for number in (1, 2, 3)] == [1, 1, 1]


@contextmanager
def frozen(broker: Broker, name: str) -> Iterator[None]:
    """The queue's process hangs; the broker and its other queues do not."""
    find = (
        f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{broker.vhost}">>, queue, '
        f'<<"{name}">>)), P = amqqueue:get_pid(Q), '
    )
    broker.node.evaluate(f"{find} sys:suspend(P)")
    try:
        yield
    finally:
        broker.node.evaluate(f"{find} sys:resume(P)")


def test_a_queue_that_hangs_is_not_the_broker(
    publisher: AmqpPublisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its declaration is given up; what goes elsewhere is sent on the same connection."""
    monkeypatch.setattr(topology_module, "ANSWER_SECONDS", 1.0)
    broker.declare("frozen")
    broker.declare("well")
    with frozen(broker, "frozen"):
        said = publish(
            publisher,
            a_message(id=1, routing_key="well", declare=queue("well")),
            a_message(id=2, routing_key="frozen", declare=queue("frozen")),
        )

    assert [(r.message.id, r.reason) for r in said.refused] == [(2, Reason.UNANSWERED)]
    assert [message.id for message in said.confirmed] == [1]


def test_a_confirm_that_does_not_come_is_its_queues_matter(broker: Broker) -> None:
    """The connection stays, and later messages for others are confirmed on it."""
    broker.declare("frozen")
    broker.declare("well")
    publisher = AmqpPublisher(broker.url, Topology(broker.url, declare=True), confirm_timeout=2.0)
    try:
        with frozen(broker, "frozen"):
            publisher.publish([a_message(id=1, routing_key="frozen"), *well(2)])
            publisher.publish([a_message(id=3, routing_key="frozen"), *well(4)])
            confirmed: list[int] = []
            refused: list[tuple[int, Reason]] = []
            deadline = monotonic() + 30
            while not (len(confirmed) == 2 and len(refused) == 2) and monotonic() < deadline:
                outcomes = publisher.poll(0.1)
                confirmed += [message.id for message in outcomes.confirmed]
                refused += [(r.message.id, r.reason) for r in outcomes.refused]
            assert sorted(refused) == [(1, Reason.UNANSWERED), (3, Reason.UNANSWERED)]
            said = publish(publisher, *well(5))

        assert sorted(confirmed) == [2, 4]
        assert [message.id for message in said.confirmed] == [5]
        assert publisher.in_flight == 0
    finally:
        publisher.close()


def well(id_: int) -> list[Message]:
    """A message for a queue that does not hang."""
    return [a_message(id=id_, routing_key="well")]
