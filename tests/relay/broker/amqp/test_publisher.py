"""Publishing to a real RabbitMQ: each message's own confirm decides, and nothing else."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue

from outbox_relay.broker.amqp import connect as connect_module
from outbox_relay.broker.amqp import line as line_module
from outbox_relay.broker.amqp.publisher import AmqpPublisher
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import Reason
from outbox_relay.errors import BrokerLost
from tests.fixtures.broker import Broker, frozen_queue, largest_message
from tests.fixtures.waiting import wait_until
from tests.relay.broker.amqp.line import Line
from tests.relay.messages import a_message, messages

DEADLINE = 30.0


OpenLine = Callable[..., Line]


@pytest.fixture
def open_line() -> Iterator[OpenLine]:
    """Connect a publisher to a URL."""
    opened: list[AmqpPublisher] = []

    def connect(url: str, *, declare: bool = True, confirm_timeout: float = DEADLINE) -> Line:
        topology = Topology(url, declare=declare)
        # Nothing is reserved: another user's id is what makes a broker close the channel.
        publisher = AmqpPublisher(url, topology, confirm_timeout, reserved=frozenset())
        opened.append(publisher)
        return Line(publisher)

    yield connect
    for publisher in opened:
        publisher.close()


@pytest.fixture
def line(open_line: OpenLine, broker: Broker) -> Line:
    """A publisher on the test's virtual host, with a queue named celery."""
    broker.declare("celery")
    return open_line(broker.url)


def declares(*entities: dict[str, Any]) -> str:
    """The `declare` column."""
    return json.dumps(entities)


def test_what_arrives_is_what_was_sent(line: Line, broker: Broker) -> None:
    """Headers of every kind, properties and body, as another client reads them."""
    headers = {
        "text": "é",
        "n": None,
        "big": 2**40,
        "neg": -(2**40),
        "f": 1.5,
        "l": [True, {"x": 1}],
    }
    properties = {"delivery_mode": 2, "priority": 5, "correlation_id": "c", "reply_to": "r"}
    line.publish(
        a_message(headers=json.dumps(headers), properties=json.dumps(properties), body=b"\x00\xff")
    )
    line.land()

    (received,) = broker.take_all("celery")

    assert received.headers == headers
    assert received.body == b"\x00\xff"
    assert {name: received.properties[name] for name in properties} == properties


def test_a_queue_deleted_meanwhile_is_noticed(line: Line, broker: Broker) -> None:
    """The broker acknowledges what it throws away; the return says so."""
    line.publish(a_message(id=1))
    line.land()
    with Connection(broker.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_delete("celery")

    line.publish(a_message(id=2))
    line.land()

    assert line.reasons == {2: Reason.UNROUTABLE}


def test_a_missing_exchange_is_told_before_it_can_do_harm(line: Line) -> None:
    """404 would close the channel under the neighbours: the message is refused by itself."""
    line.publish(a_message(id=1), a_message(id=2, exchange="nowhere"), a_message(id=3))
    line.land()

    assert line.reasons == {2: Reason.UNROUTABLE}
    assert "404" in line.refused[0].detail
    assert [m.id for m in line.confirmed] == [1, 3]


def test_an_exchange_deleted_meanwhile_puts_all_in_doubt(line: Line, broker: Broker) -> None:
    """The channel dies: no message is refused, and none is confirmed that was not."""
    entity = {"kind": "exchange", "name": "shop", "type": "topic"}
    shop = {"exchange": "shop", "mandatory": False, "declare": declares(entity)}
    line.publish(a_message(id=1, **shop))
    line.land()
    with Connection(broker.url) as connection:
        channel: Any = connection.default_channel
        channel.exchange_delete("shop")

    line.publish(a_message(id=2, **shop), a_message(id=3))
    lost = line.until_lost()

    assert lost.poison
    assert "404" in str(lost)
    unconfirmed = {m.id for m in line.publisher.unconfirmed()}
    assert unconfirmed | {m.id for m in line.confirmed} == {1, 2, 3}
    assert 2 in unconfirmed


def test_only_the_channel_that_died_is_suspect(line: Line) -> None:
    """Batches take channels in turn; what is on the other one cannot be the cause."""
    line.publish(*messages(500))
    line.publish(a_message(id=501, properties='{"user_id": "somebody-else"}'))

    lost = line.until_lost()

    assert lost.poison
    assert [message.id for message in line.publisher.unconfirmed()] == [501]


def test_after_the_broker_closed_nothing_more_is_sent(line: Line) -> None:
    """What is published on a dead channel would join the suspects without having done anything."""
    line.publish(a_message(id=1, properties='{"user_id": "somebody-else"}'))
    wait_until(lambda: _closed(line), DEADLINE, "the broker to close the channel")

    with pytest.raises(BrokerLost):
        line.publish(a_message(id=2))

    assert 2 not in {m.id for m in line.publisher.unconfirmed()}


def _closed(line: Line) -> bool:
    if line.publisher._fate is None:
        line.listen()
    return line.publisher._fate is not None


def test_a_full_queue_says_no_and_is_believed(line: Line, broker: Broker) -> None:
    """reject-publish: what does not fit is nacked, what fits is not."""
    broker.declare("narrow", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    line.publish(*messages(20, routing_key="narrow"))
    line.land()

    assert set(line.reasons.values()) == {Reason.NACKED}
    assert len(line.confirmed) == broker.depth("narrow")
    assert len(line.confirmed) + len(line.refused) == 20


def test_channels_that_say_no_are_replaced(
    line: Line, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same connection, again and again, each time with tags of their own."""
    monkeypatch.setattr(line_module, "REPLACE_AFTER", 0.0)
    broker.declare("narrow", **{"x-max-length": 2, "x-overflow": "reject-publish"})
    for fresh in ([3, 4], [1, 2], [3, 4]):
        line.publish(*messages(20, routing_key="narrow"))
        line.land()
        line.publish(*messages(500))
        line.land()
        wait_until(lambda fresh=fresh: channels(broker) == fresh, DEADLINE, "the other channels")  # type: ignore[misc]  # a default binds the loop's value; mypy infers no such lambda

    assert broker.depth("celery") == 1500
    assert len(line.confirmed) == 1500 + broker.depth("narrow")
    assert set(line.reasons.values()) == {Reason.NACKED}


def test_channels_are_not_replaced_under_what_is_in_flight(
    line: Line, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short pause is asked for; where it does not suffice, they are replaced another time."""
    monkeypatch.setattr(line_module, "MAX_DRAINING", DEADLINE)
    line.publish(*messages(500))
    line.publisher._line._replace_at = monotonic() - 1
    assert line.publisher.blocked
    monkeypatch.setattr(line_module, "MAX_DRAINING", 0.0)
    assert not line.publisher.blocked
    line.publish(*messages(500))
    line.land()

    assert not line.publisher.blocked
    assert channels(broker) == [1, 2]
    assert len(line.confirmed) == broker.depth("celery") == 1000


def test_nothing_is_waited_for_that_may_hang(
    line: Line, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a message on a channel of its own, nor what has been in flight for long."""
    carrier = line.publisher._line
    carrier.send_apart([a_message(id=1)], monotonic())
    carrier._replace_at = monotonic() - 0.01
    assert line.publisher.in_flight == 1
    assert not line.publisher.blocked
    line.publish(*messages(500))
    line.land()
    wait_until(lambda: channels(broker) == [3, 4], DEADLINE, "the other channels")

    line.publish(*messages(500))
    carrier._replace_at = monotonic() - 0.01
    assert line.publisher.blocked
    monkeypatch.setattr(line_module, "HANGS", 0.0)
    assert not line.publisher.blocked
    line.land()


def test_what_hangs_is_told_from_what_is_on_its_way(line: Line, broker: Broker) -> None:
    """A message that has been in flight for long, and a declaration; not what was sent just now."""
    broker.declare("frozen")
    publisher = line.publisher
    with frozen_queue(broker, "frozen"):
        line.publish(a_message(id=1, routing_key="frozen"))
        assert not publisher.hangs
        wait_until(lambda: line.hears() and publisher.hangs, DEADLINE, "the message to hang")

        line.publish(a_message(id=2))
        assert not publisher.hangs
        wait_until(lambda: line.hears() and line.confirmed, DEADLINE, "the other message")
        assert publisher.hangs

        declare = '[{"kind": "queue", "name": "frozen", "routing_key": "frozen"}]'
        line.publish(a_message(id=3, routing_key="frozen", declare=declare))
        assert not publisher.hangs
        wait_until(
            lambda: line.hears() and publisher.hangs and publisher.in_flight == 2,
            DEADLINE,
            "the declaration to hang",
        )
    line.land()


def channels(broker: Broker) -> list[int]:
    """The numbers of the channels that are open on the virtual host."""
    answer = broker.node.evaluate(
        "[{channel, N} || [{vhost, V}, {number, N}] <- rabbit_channel:info_all([vhost, number]),"
        f' V =:= <<"{broker.vhost}">>]'
    )
    return sorted(int(number) for number in re.findall(r"\d+", answer))


def test_what_the_broker_will_not_take_is_blamed(line: Line) -> None:
    """Another user's id closes the channel: suspicion falls on what was in flight."""
    line.publish(a_message(properties='{"user_id": "somebody-else"}'))

    lost = line.until_lost()

    assert lost.poison
    assert "406" in str(lost)


def test_what_cannot_be_encoded_never_reaches_the_wire(line: Line) -> None:
    """Its neighbours do, and their tags are their own."""
    line.publish(a_message(id=1), a_message(id=2, headers='{"x": "\\ud800"}'), a_message(id=3))
    line.land()

    assert line.reasons == {2: Reason.INVALID}
    assert [m.id for m in line.confirmed] == [1, 3]


NONSENSE = {
    "no JSON": "{",
    "not a list": '{"kind": "queue"}',
    "null": "[null]",
    "a number": "[1]",
    "kind unknown": '[{"kind": "stream", "name": "x"}]',
    "no kind": '[{"name": "x"}]',
    "name a number": '[{"kind": "queue", "name": 5}]',
    "name a list": '[{"kind": "queue", "name": ["x"]}]',
    "name of half a surrogate": '[{"kind": "queue", "name": "\\ud800"}]',
    "name too long": json.dumps([{"kind": "queue", "name": "q" * 300}]),
    "arguments a text": '[{"kind": "queue", "name": "x", "queue_arguments": "abc"}]',
    "argument of a wrong type": '[{"kind": "queue", "name": "x", "max_length": "many"}]',
    "argument too large": json.dumps(
        [{"kind": "queue", "name": "x", "queue_arguments": {"x": 2**70}}]
    ),
    "exchange of an unknown type": '[{"kind": "exchange", "name": "x", "type": "nonsense"}]',
    "exchange type a number": '[{"kind": "exchange", "name": "x", "type": 7}]',
    "exchange a text": '[{"kind": "queue", "name": "x", "exchange": "y"}]',
    "nested too deeply": "[" * 900 + "]" * 900,
}


@pytest.mark.parametrize("declare", NONSENSE.values(), ids=NONSENSE)
def test_a_nonsensical_declaration_harms_only_its_row(line: Line, declare: str) -> None:
    """It may be refused or ignored; the relay, the link and the neighbours live on."""
    line.publish(
        a_message(id=1), a_message(id=2, routing_key="x", declare=declare), a_message(id=3)
    )
    line.land()

    assert {1, 3} <= {m.id for m in line.confirmed}


@contextmanager
def no_more_channels(broker: Broker) -> Iterator[None]:
    """The user has as many channels as it may have."""

    def allow(limits: str) -> None:
        broker.node.evaluate(
            f'ok = rabbit_auth_backend_internal:set_user_limits(<<"outbox">>, {limits}, <<"test">>)'
        )

    allow(f'#{{<<"max-channels">> => {len(channels(broker))}}}')
    try:
        yield
    finally:
        allow('#{<<"max-channels">> => -1}')


def test_a_declaration_that_gets_no_channel_waits(line: Line, broker: Broker) -> None:
    """No channel left for the user: the queue's messages wait, and no other does."""
    new = declares({"kind": "queue", "name": "new", "exchange": {"name": ""}})
    line.publish(a_message(id=1))
    line.land()
    with no_more_channels(broker):
        line.publish(a_message(id=2, routing_key="new", declare=new), a_message(id=3))
        wait_until(lambda: line.hears() and line.refused, DEADLINE, "word of the declaration")
        assert line.reasons == {2: Reason.UNANSWERED}

    line.publish(a_message(id=4, routing_key="new", declare=new))
    line.land()
    assert {m.id for m in line.confirmed} == {1, 3, 4}


@contextmanager
def no_more_queues(broker: Broker) -> Iterator[None]:
    """The virtual host has as many queues as it may have."""

    def allow(queues: int) -> None:
        broker.ctl("set_vhost_limits", json.dumps({"max-queues": queues}))

    allow(1)
    try:
        yield
    finally:
        allow(-1)


@pytest.mark.parametrize("name", ["new", "n" * 255], ids=["new", "a name that cuts off the words"])
def test_a_queue_beyond_the_limit_waits(line: Line, broker: Broker, name: str) -> None:
    """No queue left for the virtual host: those that need one wait; a queue that is there goes on.

    Once the limit is raised, the queue is declared and has its messages.
    """
    new = declares({"kind": "queue", "name": name, "exchange": {"name": ""}})
    old = declares({"kind": "queue", "name": "celery", "exchange": {"name": ""}})
    with no_more_queues(broker):
        line.publish(a_message(id=1, routing_key=name, declare=new), a_message(id=2, declare=old))
        line.land()
        assert line.reasons == {1: Reason.UNANSWERED}
        assert "406 PRECONDITION_FAILED" in line.refused[0].detail
        assert [message.id for message in line.confirmed] == [2]

    line.publish(a_message(id=3, routing_key=name, declare=new))
    line.land()
    assert [message.id for message in line.confirmed] == [2, 3]


def test_messages_larger_than_the_broker_takes_cost_their_channel_alone(
    open_line: OpenLine, broker: Broker
) -> None:
    """Each channel learns the limit once, and what was beside them is confirmed on the same link.

    The next too large one is refused unsent.
    """
    broker.declare("celery")
    good = messages(800)
    with largest_message(broker.node, 5000):
        line = open_line(broker.url)
        large = [a_message(id=1000 + number, body=b"x" * 5001) for number in range(4)]
        for start, one in zip(range(0, 800, 200), large, strict=True):
            line.publish(*good[start : start + 100], one, *good[start + 100 : start + 200])
        line.land()
        (unsent,) = line.publisher.publish([a_message(id=2000, body=b"x" * 6000)])
        line.publish(a_message(id=2001, body=b"x" * 5000))
        line.land()

    assert {m.id for m in line.confirmed} == {*range(1, 801), 2001}
    assert line.reasons == dict.fromkeys(range(1000, 1004), Reason.TOO_LARGE)
    assert len(line.confirmed) == 801
    assert "5001 bytes is larger than the broker takes (5000 bytes" in line.refused[0].detail
    assert unsent.reason is Reason.TOO_LARGE
    assert {m.body for m in broker.take_all("celery")} == {a_message().body, b"x" * 5000}


def test_one_too_large_on_a_channel_of_its_own_is_refused_once(
    open_line: OpenLine, broker: Broker
) -> None:
    """Nothing of it stays in flight, and the others go on in their channels."""
    broker.declare("celery")
    with largest_message(broker.node, 5000):
        line = open_line(broker.url)
        line.publisher._line.send_apart([a_message(id=1000, body=b"x" * 5001)], monotonic())
        line.land()
        line.publish(*messages(500))
        line.land()

    assert [(r.message.id, r.reason) for r in line.refused] == [(1000, Reason.TOO_LARGE)]
    assert len(line.confirmed) == 500
    wait_until(lambda: channels(broker) == [1, 2], DEADLINE, "no other channel")


def test_a_queue_somebody_keeps_to_himself_harms_only_its_row(line: Line, broker: Broker) -> None:
    """405: an exclusive queue of another connection can be neither declared nor waited out."""
    with Connection(broker.url) as owner:
        channel: Any = owner.default_channel
        channel.queue_declare("private", exclusive=True)

        entity = {"kind": "queue", "name": "private"}
        line.publish(a_message(id=1, declare=declares(entity)), a_message(id=2))
        line.land()

    assert {m.id for m in line.confirmed} == {1, 2}


def test_a_missing_queue_is_declared_as_celery_would(line: Line, broker: Broker) -> None:
    """Durable, bound to its exchange, with its arguments: Celery can declare it again."""
    arguments = {"x-queue-type": "quorum"}
    quorum = {
        "kind": "queue",
        "name": "bills",
        "routing_key": "bills",
        "queue_arguments": arguments,
        "exchange": {"name": "bills"},
    }
    levels = {
        "kind": "queue",
        "name": "urgent",
        "routing_key": "urgent",
        "max_priority": 10,
        "exchange": {"name": "tasks", "type": "topic"},
    }
    line.publish(
        a_message(id=1, routing_key="bills", declare=declares(quorum)),
        a_message(id=2, exchange="tasks", routing_key="urgent", declare=declares(levels)),
    )
    line.land()

    assert {m.id for m in line.confirmed} == {1, 2}  # of two queues, in any order
    with Connection(broker.url) as connection:
        for queue in (
            Queue("bills", Exchange("bills"), "bills", queue_arguments=arguments),
            Queue("urgent", Exchange("tasks", "topic"), "urgent", max_priority=10),
        ):
            queue(connection.default_channel).declare()
    assert (broker.depth("bills"), broker.depth("urgent")) == (1, 1)


def test_a_queue_that_exists_otherwise_is_left_alone(line: Line, broker: Broker) -> None:
    """The operator's definition wins; the message goes there."""
    broker.declare("bills", **{"x-max-priority": 3})
    entity = {"kind": "queue", "name": "bills", "routing_key": "bills"}
    line.publish(a_message(routing_key="bills", declare=declares(entity)))
    line.land()

    assert len(line.confirmed) == 1
    assert broker.depth("bills") == 1


def test_a_returned_message_has_its_queue_declared_anew(line: Line, broker: Broker) -> None:
    """A queue somebody deleted is back, and the message in it, at no attempt."""
    message = a_message(
        routing_key="bills",
        declare=declares({"kind": "queue", "name": "bills", "routing_key": "bills"}),
    )
    line.publish(message)
    line.land()
    with Connection(broker.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_delete("bills")

    line.publish(message)
    line.land()

    assert len(line.confirmed) == 2
    assert not line.refused
    assert broker.depth("bills") == 1


def test_an_idle_link_is_kept(
    open_line: OpenLine, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heartbeats go both ways while there is nothing to say."""
    monkeypatch.setattr(connect_module, "HEARTBEAT", 1.0)
    broker.declare("celery")
    line = open_line(broker.url)
    ends = monotonic() + 4
    while monotonic() < ends:  # four heartbeats, of which the broker forgives two
        line.listen()

    line.publish(a_message())
    line.land()

    assert len(line.confirmed) == 1


def test_a_virtual_host_that_is_not_there_is_transient(broker: Broker) -> None:
    """530 closes the connection during its opening."""
    with pytest.raises(BrokerLost):
        AmqpPublisher(broker.node.url("absent"), Topology("", declare=True), DEADLINE)


def test_it_is_spotless_until_something_is_held_against_it(
    open_line: OpenLine, broker: Broker
) -> None:
    """With nothing in flight, any relay of this broker may go on with it."""
    broker.declare("celery")
    broker.declare("full", **{"x-max-length": 0, "x-overflow": "reject-publish"})
    line = open_line(broker.url)
    assert line.publisher.spotless
    line.publish(*messages(3))
    assert not line.publisher.spotless
    line.land()
    assert line.publisher.spotless
    line.publish(a_message(id=9, routing_key="full"))
    line.land()

    assert not line.publisher.spotless  # the channel is to be replaced
