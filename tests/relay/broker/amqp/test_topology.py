"""What declarations may do to a relay on a real RabbitMQ: cost the row that asks for them."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import pytest

from outbox_relay.broker.amqp import declarer as declarer_module
from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import Message, Outcomes, Reason
from tests.fixtures.broker import Broker, frozen_queue
from tests.fixtures.waiting import wait_until
from tests.relay.broker.amqp.line import Line
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


def test_a_queue_that_hangs_is_not_the_broker(
    publisher: AmqpPublisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its declaration is given up; what goes elsewhere is sent on the same connection."""
    monkeypatch.setattr(declarer_module, "ANSWER_SECONDS", 1.0)
    broker.declare("frozen")
    broker.declare("well")
    with frozen_queue(broker, "frozen"):
        said = publish(
            publisher,
            a_message(id=1, routing_key="well", declare=queue("well")),
            a_message(id=2, routing_key="frozen", declare=queue("frozen")),
        )

    assert [(r.message.id, r.reason) for r in said.refused] == [(2, Reason.UNANSWERED)]
    assert [message.id for message in said.confirmed] == [1]


def test_nobody_waits_for_a_declaration_but_who_needs_it(
    publisher: AmqpPublisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queues that hang, and other new queues in the same batch: these are declared and sent."""
    monkeypatch.setattr(declarer_module, "ANSWER_SECONDS", 2 * DEADLINE)
    hanging = [f"frozen{number}" for number in range(3)]
    for name in hanging:
        broker.declare(name)
    stuck = [
        a_message(id=number, routing_key=name, declare=queue(name))
        for number, name in enumerate(hanging)
    ]
    with ExitStack() as ice:
        for name in hanging:
            ice.enter_context(frozen_queue(broker, name))
        publisher.publish([*stuck, a_message(id=10, routing_key="new", declare=queue("new"))])
        publisher.publish([a_message(id=11), a_message(id=12, routing_key="n", declare=queue("n"))])
        confirmed: set[int] = set()

        def heard() -> bool:
            outcomes = publisher.poll(0.05)
            assert not outcomes.refused
            confirmed.update(message.id for message in outcomes.confirmed)
            return confirmed >= {10, 11, 12}

        wait_until(heard, DEADLINE, "what does not need them")
        assert publisher.unpublished() == stuck
    wait_until(lambda: heard() and publisher.in_flight == 0, DEADLINE, "the rest")

    assert confirmed == {0, 1, 2, 10, 11, 12}


def test_messages_pass_two_thousand_new_queues(
    publisher: AmqpPublisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of these are declared, and those that are sent meanwhile are confirmed meanwhile."""
    monkeypatch.setattr(publisher._topology, "_stay", 2 * DEADLINE)
    publish(publisher, a_message(id=0))
    names = [f"q{number}" for number in range(2000)]
    assert not publisher.publish(
        [
            a_message(id=number, routing_key=name, declare=queue(name))
            for number, name in enumerate(names, start=1000)
        ]
    )
    passed = rounds = 0
    while publisher.unpublished():
        publisher.publish([a_message(id=1)])
        confirmed: list[int] = []
        while 1 not in confirmed:
            outcomes = publisher.poll(0.05)
            assert not outcomes.refused
            confirmed += [message.id for message in outcomes.confirmed]
        rounds += 1
        passed += bool(publisher.unpublished())
    publish(publisher)

    assert passed >= 10
    assert broker.depth("celery") == 1 + rounds
    assert broker.depth(names[0]) == broker.depth(names[-1]) == 1


def test_what_takes_the_connection_is_found_among_many(
    publisher: AmqpPublisher, broker: Broker
) -> None:
    """An exchange of no known type is nonsense to some brokers; its neighbours are declared."""
    good = [
        a_message(id=number, routing_key=f"g{number}", declare=queue(f"g{number}"))
        for number in range(20)
    ]
    bad = json.dumps([{"kind": "exchange", "name": "x", "type": "nonsense"}])

    said = publish(publisher, *good[:10], a_message(id=99, declare=bad), *good[10:])

    assert {message.id for message in said.confirmed} >= set(range(20))
    assert {refusal.message.id for refusal in said.refused} <= {99}
    assert broker.depth("g0") == broker.depth("g19") == 1


def test_an_exchange_whose_plugin_is_missing_harms_only_its_rows(
    publisher: AmqpPublisher, broker: Broker
) -> None:
    """x-delayed-message without the plugin: the row is refused by the broker's words, not lost.

    Where the exchange is there already, nothing is declared, and the row goes through.
    """
    name, exchange = "later", {"name": "delayed", "type": "x-delayed-message"}
    arguments = {"arguments": {"x-delayed-type": "direct"}}
    delayed = a_message(
        id=1,
        exchange="delayed",
        routing_key=name,
        declare=queue(name, exchange=exchange | arguments),
    )
    good = a_message(id=2, routing_key="plain", declare=queue("plain"))

    for _ in range(2):
        said = publish(publisher, delayed, good)

        assert good in said.confirmed
        assert not [r for r in said.refused if "x-delayed-message" not in r.detail]
        assert len(said.confirmed) + len(said.refused) == 2
    assert broker.depth("plain") == 2


def test_a_confirm_that_does_not_come_is_its_queues_matter(broker: Broker) -> None:
    """The connection stays, and later messages for others are confirmed on it."""
    broker.declare("frozen")
    broker.declare("well")
    publisher = AmqpPublisher(broker.url, Topology(broker.url, declare=True), confirm_timeout=2.0)
    try:
        with frozen_queue(broker, "frozen"):
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


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_queue_that_stops_a_whole_connection_stops_its_own_messages(
    broker: Broker, kind: str
) -> None:
    """More for a frozen queue than RabbitMQ reads ahead: the others arrive before it answers again.

    Those that stood behind it on the connection too, and new ones; it gets no more than a probe.
    """
    for name in ("frozen", "well", "fine"):
        broker.declare(name, **{"x-queue-type": kind})
    publisher = AmqpPublisher(
        broker.url, Topology(broker.url, declare=True), confirm_timeout=DEADLINE
    )
    line = Line(publisher)
    frozen_ones = messages(2000, routing_key="frozen")
    behind = [a_message(id=number, routing_key="well") for number in range(5000, 5100)]
    try:
        with frozen_queue(broker, "frozen"):
            line.publish(*frozen_ones)
            line.publish(*behind)
            wait_until(lambda: line.hears() and publisher.stuck, DEADLINE, "a way around")
            line.publish(a_message(id=6000, routing_key="fine"))
            line.publish(*messages(10, routing_key="frozen"))
            expected = {message.id for message in behind} | {6000}
            wait_until(
                lambda: line.hears() and expected <= {m.id for m in line.confirmed},
                DEADLINE,
                "the others",
            )
            assert not [m for m in line.confirmed if m.routing_key == "frozen"]
            assert line.reasons == dict.fromkeys(range(1, 11), Reason.UNANSWERED)
            assert publisher.stuck == len(frozen_ones) - 1
        line.land()

        assert {m.id for m in line.confirmed} == expected | {m.id for m in frozen_ones}
        assert len(line.confirmed) == len(expected) + len(frozen_ones)
        assert publisher.stuck == 0
    finally:
        publisher.close()


def well(id_: int) -> list[Message]:
    """A message for a queue that does not hang."""
    return [a_message(id=id_, routing_key="well")]
