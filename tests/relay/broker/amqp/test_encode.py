"""What the relay writes is what py-amqp would have written; what no frame carries is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.method_framing import frame_writer
from amqp.serialization import dumps
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.utils.json import dumps as kombu_dumps

from outbox_relay.broker.amqp.encode import Encoder
from outbox_relay.core.message import Message
from outbox_relay.errors import Unpublishable
from tests.relay.messages import a_message

CHANNEL = 3
FRAME_MAX = 131_072
BASIC_PUBLISH = (60, 40)

#: Text a database with UTF-8 can hold: no NUL, no lone surrogate.
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=80)
short_text = text.filter(lambda value: len(value.encode()) <= 255)
decimals = st.decimals(
    allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=1_000_000
)
# py-amqp loses the time zone of a naive or non-UTC datetime: only these have one right answer.
moments = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(
        -(2**31) + 1, 2**31 - 1
    ),  # beyond, see test_publisher: the broker reads another letter
    st.floats(allow_nan=False, allow_infinity=False),
    text,
    st.binary(max_size=40),
    moments,
    decimals,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(short_text, inner, max_size=4),
    max_leaves=12,
)
header_tables = st.dictionaries(short_text, values, max_size=8)
property_tables = st.fixed_dictionaries(
    {},
    optional={
        "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255),
        "correlation_id": short_text,
        "reply_to": short_text,
        "message_id": short_text,
        "timestamp": st.integers(0, 2**63 - 1),
        "type": short_text,
        "user_id": short_text,
        "app_id": short_text,
        "cluster_id": short_text,
    },
)


def encoded(message: Message, now: float = 0.0, frame_max: int = FRAME_MAX) -> bytes:
    """Return the frames of the relay as one string of bytes; a second time they are the same."""
    encoder = Encoder(frame_max)
    frames = b"".join(encoder.frames(message, CHANNEL, now))
    assert b"".join(encoder.frames(message, CHANNEL, now)) == frames
    return frames


def by_py_amqp(
    message: Message, headers: object, properties: dict[str, Any], frame_max: int = FRAME_MAX
) -> bytes:
    """Return the frames py-amqp writes for the same message."""
    written: list[bytes] = []
    transport = SimpleNamespace(write=lambda data: written.append(bytes(data)))
    write = frame_writer(SimpleNamespace(frame_max=frame_max, bytes_sent=0), transport)
    content = amqp.Message(
        message.body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        application_headers=headers,
        **properties,
    )
    route = (0, message.exchange, message.routing_key, message.mandatory, False)
    write(1, CHANNEL, BASIC_PUBLISH, dumps("Bssbb", route), content)
    return b"".join(written)


@settings(max_examples=120, deadline=None)
@given(header_tables, property_tables, st.binary(min_size=1, max_size=200), short_text, short_text)
def test_any_message_is_encoded_byte_for_byte_as_py_amqp_does(
    headers: dict[str, Any], properties: dict[str, Any], body: bytes, exchange: str, key: str
) -> None:
    """Whatever headers and properties a row can hold, the wire cannot tell us from py-amqp."""
    message = a_message(
        headers=kombu_dumps(headers),
        properties=json.dumps(properties),
        body=body,
        exchange=exchange,
        routing_key=key,
    )

    assert encoded(message) == by_py_amqp(message, headers, properties)


@pytest.mark.parametrize("size", [1, 4087, 4088, 4089, 8176, 8177, 20_000])
def test_a_body_is_cut_into_frames_as_py_amqp_cuts_it(size: int) -> None:
    """Bodies of one frame, exactly a frame, a byte more, and many frames."""
    message = a_message(body=bytes(range(256)) * (size // 256) + bytes(size % 256), headers="{}")

    frames = encoded(message, frame_max=4096)

    assert frames == by_py_amqp(message, {}, json.loads(message.properties), frame_max=4096)


def test_an_empty_body_has_no_body_frame() -> None:
    """A content of length nought ends with its header, as AMQP has it."""
    with_body = encoded(a_message(body=b"x"))
    without = encoded(a_message(body=b""))

    assert len(with_body) - len(without) == len(b"\x03\x00\x03\x00\x00\x00\x01x\xce")


@pytest.mark.parametrize("mandatory", [True, False])
def test_the_mandatory_bit_is_the_rows(mandatory: bool) -> None:
    """A message that may reach no queue is not published as mandatory, every other one is."""
    message = a_message(mandatory=mandatory)

    assert encoded(message) == by_py_amqp(
        message, json.loads(message.headers), json.loads(message.properties)
    )


def test_nulls_among_the_properties_are_left_out() -> None:
    """A property stored as null is not set, as where a producer in another language writes it."""
    bare = a_message(properties='{"priority": 3}')
    padded = a_message(properties='{"priority": 3, "reply_to": null, "user_id": null}')

    assert encoded(bare) == encoded(padded)


def test_waiting_shortens_an_expiration() -> None:
    """A time-to-live began when the row was written, not when the relay came to it."""
    message = a_message(properties='{"expiration": "60000"}', born=100.0)
    expected = by_py_amqp(message, json.loads(message.headers), {"expiration": "58500"})

    assert encoded(message, now=101.5) == expected


def test_an_expiration_never_becomes_negative() -> None:
    """A broker closes the channel over a negative time-to-live."""
    message = a_message(properties='{"expiration": "60000"}', born=0.0)

    assert encoded(message, now=3600.0) == encoded(a_message(properties='{"expiration": "0"}'))


def tagged(kind: str, value: object) -> str:
    """Headers holding one of kombu's tagged values."""
    return json.dumps({"x": {"__type__": kind, "__value__": value}})


UNPUBLISHABLE: dict[str, dict[str, Any]] = {
    "header too large for 64 bits": {"headers": json.dumps({"x": 2**63})},
    "header not finite": {"headers": '{"x": 1e400}'},
    "header not finite beside a tag": {"headers": f'{{"y": 1e400, {tagged("bytes", "b")[1:]}'},
    "header with a lone surrogate": {"headers": '{"x": "\\ud800"}'},
    "surrogate beside a tag": {"headers": f'{{"y": "\\ud800", {tagged("bytes", "b")[1:]}'},
    "header name of 256 bytes": {"headers": json.dumps({"k" * 256: 1})},
    "header name of 128 two-byte letters": {"headers": json.dumps({"é" * 128: 1})},
    "headers nested too deeply": {"headers": '{"x": ' + "[" * 30_000 + "]" * 30_000 + "}"},
    "tag beside deep nesting": {
        "headers": '{"__type__": 1, "x": ' + "[" * 30_000 + "]" * 30_000 + "}"
    },
    "tag unknown": {"headers": tagged("pickle", "gASVAAAAAA==")},
    "tag with a wrong value": {"headers": tagged("decimal", "ten")},
    "tag with a value of a wrong type": {"headers": tagged("uuid", {"hex": 5})},
    "tag of bytes with a number": {"headers": tagged("bytes", 5)},
    "tag of a type AMQP lacks": {"headers": tagged("date", "2026-01-01")},
    "moment before 1970": {"headers": tagged("datetime", "1969-12-31T00:00:00+00:00")},
    "decimal with too many digits": {"headers": tagged("decimal", "99999999999.5")},
    "decimal with an exponent": {"headers": tagged("decimal", "1E+9")},
    "decimal that is no number": {"headers": tagged("decimal", "NaN")},
    "headers larger than a frame": {"headers": json.dumps({"x": "y" * FRAME_MAX})},
    "headers not an object": {"headers": "[]"},
    "properties not an object": {"properties": "1"},
    "property unknown": {"properties": '{"delivery-mode": 2}'},
    "property only kombu knows": {"properties": '{"delivery_info": {}}'},
    "priority negative": {"properties": '{"priority": -1}'},
    "priority of 256": {"properties": '{"priority": 256}'},
    "priority in words": {"properties": '{"priority": "high"}'},
    "priority true": {"properties": '{"priority": true}'},
    "priority with a fraction": {"properties": '{"priority": 1.5}'},
    "delivery mode of 7": {"properties": '{"delivery_mode": 7}'},
    "delivery mode with a fraction": {"properties": '{"delivery_mode": 2.0}'},
    "delivery mode a list": {"properties": '{"delivery_mode": [2]}'},
    "expiration negative": {"properties": '{"expiration": "-1"}'},
    "expiration with a unit": {"properties": '{"expiration": "10s"}'},
    "expiration with a fraction": {"properties": '{"expiration": 1.5}'},
    "expiration true": {"properties": '{"expiration": true}'},
    "expiration superscript": {"properties": '{"expiration": "²"}'},
    "expiration of 5000 digits": {"properties": json.dumps({"expiration": "9" * 5000})},
    "correlation id a number": {"properties": '{"correlation_id": 5}'},
    "reply_to of 256 bytes": {"properties": json.dumps({"reply_to": "r" * 256})},
    "timestamp negative": {"properties": '{"timestamp": -1}'},
    "timestamp in words": {"properties": '{"timestamp": "noon"}'},
    "timestamp of 65 bits": {"properties": json.dumps({"timestamp": 2**64})},
    "content type of 256 bytes": {"content_type": "t" * 256},
    "exchange of 256 bytes": {"exchange": "e" * 256},
    "routing key of 256 bytes": {"routing_key": "é" * 128},
}


@pytest.mark.parametrize("columns", UNPUBLISHABLE.values(), ids=UNPUBLISHABLE)
def test_what_no_broker_could_take_is_refused_by_itself(columns: dict[str, Any]) -> None:
    """Nonsense in a row raises Unpublishable with a reason, never anything that ends the relay."""
    with pytest.raises(Unpublishable) as refused:
        encoded(a_message(**columns))

    assert str(refused.value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_refused(value: int) -> None:
    """A header is sent as it was written or not at all: never as a number near it."""
    with pytest.raises(Unpublishable):
        encoded(a_message(headers=json.dumps({"x": value})))


nonsense = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["__type__", "__value__", "x", "priority"]), inner)
        | st.builds(
            lambda kind, value: {"__type__": kind, "__value__": value},
            st.sampled_from(
                ["uuid", "decimal", "datetime", "date", "time", "bytes", "base64", "x"]
            ),
            inner,
        )
    ),
    max_leaves=8,
)
PROPERTY_NAMES = ["delivery_mode", "priority", "expiration", "timestamp", "type", "user_id", "odd"]


@settings(max_examples=120, deadline=None)
@given(nonsense, st.dictionaries(st.sampled_from(PROPERTY_NAMES), nonsense))
def test_whatever_json_a_row_holds_blames_at_most_that_row(
    header: object, properties: dict[str, object]
) -> None:
    """Any JSON at all is either encoded or refused."""
    dump: Callable[[object], str] = json.dumps
    message = a_message(headers=dump({"x": header}), properties=dump(properties))

    try:
        frames = encoded(message)
    except Unpublishable:
        return
    assert frames


def test_a_tag_makes_no_difference_to_equal_values() -> None:
    """Headers with kombu's tags are read by another decoder; the bytes are the same."""
    headers = {"a": 1, "b": "é", "c": [None, 2.5], "d": {"e": True}}
    plain = encoded(a_message(headers=json.dumps(headers)))
    nested = {**headers, "f": b"raw", "g": Decimal("1.5")}

    assert plain == by_py_amqp(a_message(), headers, json.loads(a_message().properties))
    assert encoded(a_message(headers=kombu_dumps(nested))) == by_py_amqp(
        a_message(), nested, json.loads(a_message().properties)
    )
