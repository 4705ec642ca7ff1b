"""The room in which messages wait for a declaration: bounded, fair, and nobody stays for long."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from outbox_relay.broker.amqp import topology as topology_module
from outbox_relay.broker.amqp.topology import MAX_WAITING_BYTES, PATIENCE, Topology
from outbox_relay.core.message import Message, Reason
from outbox_relay.errors import BrokerLost
from tests.relay.messages import a_message

ROOM, STAY = 100, 5.0


class NeverOpen:
    """A connection that takes for ever, or cannot be had at all."""

    failure: BrokerLost | None = None

    def __init__(self, _url: str) -> None:
        """Begin to open it."""

    def result(self) -> None:
        """Not yet."""
        if self.failure:
            raise self.failure

    def abandon(self) -> None:
        """Nobody waits for it any more."""


@pytest.fixture
def topology() -> Iterator[Topology]:
    """A topology whose broker never answers."""
    with patch.object(topology_module, "BackgroundOpening", NeverOpen):
        yield Topology("", declare=True, room=ROOM, stay=STAY)


def to(name: str, count: int) -> list[Message]:
    """Messages for a queue that is to be declared."""
    declare = f'[{{"kind": "queue", "name": "{name}"}}]'
    return [a_message(id=n, routing_key=name, declare=declare) for n in range(count)]


def test_a_backlog_waits_for_a_declaration_that_takes_a_moment(topology: Topology) -> None:
    """To put off thousands of messages, for seconds, because of milliseconds would be absurd."""
    ready, refused = topology.prepare(to("new", 10 * ROOM), 0.0)

    assert not ready
    assert not refused
    assert topology.step(PATIENCE).refused == []
    assert topology.waiting == 10 * ROOM


def test_what_takes_long_leaves_room_to_others(topology: Topology) -> None:
    """However many wait for one queue, those for others find room, and what does not is put off."""
    topology.prepare(to("hangs", 10 * ROOM), 0.0)
    slow = PATIENCE + 0.1
    while refused := topology.step(slow).refused:
        assert {refusal.reason for refusal in refused} == {Reason.UNDECLARED}
    assert 0 < topology.waiting <= ROOM

    assert len(topology.prepare(to("hangs", ROOM), slow).refused) > 0
    assert topology.prepare(to("new", 10), slow).refused == []


def test_many_queues_that_take_long_are_thinned_out_as_well(topology: Topology) -> None:
    """Of those for which one message waits each, as many stay as there is room for."""
    for n in range(2 * ROOM):
        topology.prepare(to(f"queue {n}", 1), 0.0)

    refused = topology.step(PATIENCE + 0.1).refused

    assert len(refused) == ROOM == topology.waiting


def test_messages_that_wait_are_bounded_in_bytes(topology: Topology) -> None:
    """All of a message counts, not its body alone."""
    large = [m._replace(headers=b"x" * (1 << 20)) for m in to("large", 50)]

    topology.prepare(large, 0.0)
    refused = topology.step(PATIENCE + 0.1).refused + topology.step(PATIENCE + 0.2).refused

    assert topology.waiting + len(refused) == 50
    assert 0 < topology.waiting_bytes <= MAX_WAITING_BYTES


def test_nobody_waits_for_longer_than_a_claim_lasts(topology: Topology) -> None:
    """Its claim may be another relay's afterwards: it is put off, unpublished, at no attempt."""
    topology.prepare(to("early", 2), 0.0)
    topology.prepare(to("late", 2), STAY)
    assert topology.step(STAY).refused == []

    ready, refused = topology.step(STAY + 0.1)

    assert not ready
    assert [(r.message.routing_key, r.reason) for r in refused] == [
        ("early", Reason.UNDECLARED)
    ] * 2
    assert topology.waiting == 2


def test_without_a_connection_to_declare_on_routes_are_unanswered(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may have no connection left for us; what needs no declaration is not touched."""
    topology.prepare(to("new", 2), 0.0)
    topology.step(0.0)
    monkeypatch.setattr(NeverOpen, "failure", BrokerLost("connection limit reached"))

    ready, refused = topology.step(0.1)

    assert not ready
    assert [(r.reason, r.detail) for r in refused] == [
        (Reason.UNANSWERED, "connection limit reached")
    ] * 2
    assert (topology.waiting, topology.waiting_bytes) == (0, 0)
    assert topology.prepare([a_message()], 0.2) == ([a_message()], [])
