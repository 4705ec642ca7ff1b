"""Frames are understood wherever the network cuts them, and rubbish never looks like a confirm."""

from struct import pack
from typing import Any

import pytest
from amqp.basic_message import Message as AmqpMessage
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.broker.amqp.inbound import Blocked, Closed, Confirm, Event, Inbound, Returned


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    """One AMQP frame."""
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """A method frame."""
    return frame(1, pack(">HH", class_id, method_id) + arguments)


def ack(tag: int, *, multiple: bool = False) -> bytes:
    """basic.ack."""
    return method(60, 80, pack(">QB", tag, multiple))


def nack(tag: int, *, multiple: bool = False) -> bytes:
    """basic.nack; the requeue bit, which a publisher must ignore, is set."""
    return method(60, 120, pack(">QB", tag, multiple | 2))


def returned(body: bytes = b"body", **properties: object) -> bytes:
    """basic.return with its content, as RabbitMQ sends it."""
    content: Any = AmqpMessage(body, **properties)
    header = pack(">HHQ", 60, 0, len(body)) + content._serialize_properties()
    arguments = pack(">H", 312) + dumps("sss", ("NO_ROUTE", "events", "shop.order"))
    pieces = [method(60, 50, arguments), frame(2, header)]
    return b"".join(pieces + ([frame(3, body)] if body else []))


HEARTBEAT = frame(8, b"", channel=0)
STREAM = b"".join(
    (
        ack(1),
        HEARTBEAT,
        nack(3),
        returned(
            content_type="application/json",
            content_encoding="utf-8",
            application_headers={"task": "shop.bill", "deep": {"er": [1, None]}},
            delivery_mode=2,
            priority=5,
            correlation_id="correlation",
            reply_to="reply",
            expiration="1000",
            message_id="message",
        ),
        ack(4),
        method(10, 60, dumps("s", ("low on disk",))),
        method(10, 61),
        ack(9, multiple=True),
        method(20, 40, pack(">H", 404) + dumps("s", ("NOT_FOUND",)) + pack(">HH", 60, 40)),
        method(10, 50, pack(">H", 320) + dumps("s", ("CONNECTION_FORCED",)) + pack(">HH", 0, 0)),
    )
)
EVENTS: list[Event] = [
    Confirm(1, multiple=False),
    Confirm(3, multiple=False, ack=False),
    Returned(312, "NO_ROUTE", "events", "shop.order", "correlation", "message"),
    Confirm(4, multiple=False),
    Blocked(True, "low on disk"),
    Blocked(False),
    Confirm(9, multiple=True),
    Closed(404, "NOT_FOUND", connection=False),
    Closed(320, "CONNECTION_FORCED", connection=True),
]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_cut_anywhere_says_the_same(cut: int) -> None:
    """Every byte position is a place where a segment may end."""
    inbound = Inbound()

    events = [*inbound.feed(STREAM[:cut]), *inbound.feed(STREAM[cut:])]

    assert events == EVENTS


@given(st.lists(st.integers(1, 60), min_size=1))
def test_a_stream_in_any_pieces_says_the_same(sizes: list[int]) -> None:
    """However small the pieces and however many, no event is lost or made up."""
    inbound, events, position = Inbound(), [], 0
    for size in sizes:
        events += list(inbound.feed(STREAM[position : position + size]))
        position += size
    events += list(inbound.feed(STREAM[position:]))

    assert events == EVENTS


def test_the_smallest_pieces_of_all() -> None:
    """One byte at a time."""
    inbound = Inbound()

    events = [event for byte in STREAM for event in inbound.feed(bytes((byte,)))]

    assert events == EVENTS


def test_a_return_without_properties_is_told_by_its_route() -> None:
    """A message that names neither itself nor a correlation is still known to have come back."""
    (event,) = Inbound().feed(returned(b""))

    assert event == Returned(312, "NO_ROUTE", "events", "shop.order", None, None)


def test_two_returns_in_a_row_are_two_returns() -> None:
    """What one return said never leaks into the next."""
    stream = returned(correlation_id="a", message_id="b") + returned(message_id="c")

    first, second = Inbound().feed(stream)

    assert isinstance(first, Returned)
    assert isinstance(second, Returned)
    assert (first.correlation_id, first.message_id) == ("a", "b")
    assert (second.correlation_id, second.message_id) == (None, "c")


def test_a_body_that_looks_like_a_confirm_is_a_body() -> None:
    """Somebody else's payload cannot acknowledge our messages."""
    events = list(Inbound().feed(returned(ack(7) + ack(8, multiple=True), message_id="m")))

    assert [type(event) for event in events] == [Returned]


def test_the_requeue_bit_of_a_nack_is_not_multiple() -> None:
    """The second bit of basic.nack is not the first."""
    (event,) = Inbound().feed(nack(5))

    assert event == Confirm(5, multiple=False, ack=False)


@pytest.mark.parametrize("wreck", [ack(1)[:-1] + b"\x00", frame(7, b"odd")])
def test_what_is_no_frame_ends_the_connection(wreck: bytes) -> None:
    """Out of step with the broker, nothing more is believed."""
    events = list(Inbound().feed(wreck + ack(2)))

    (closed,) = events
    assert isinstance(closed, Closed)
    assert (closed.code, closed.connection) == (501, True)


@pytest.mark.parametrize("method_id", [(60, 999), (10, 999), (85, 11), (20, 20)])
def test_methods_of_no_concern_are_passed_over(method_id: tuple[int, int]) -> None:
    """A method we never asked for changes nothing about the confirms around it."""
    events = list(Inbound().feed(ack(1) + method(*method_id, b"\x00\x00") + ack(2)))

    assert events == [Confirm(1, multiple=False), Confirm(2, multiple=False)]
