"""A message as AMQP 0-9-1 frames: the bytes py-amqp would send, but `l` for its `L` (64 bits).

Written out by hand because it is the relay's hottest path: a seventh of py-amqp's cost. What a
frame cannot carry is refused here, before it can close the channel under its neighbours; what is
said of it names the field and not the value, because it will be logged.
"""

import json
from collections.abc import Callable, Collection
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from math import isfinite
from struct import Struct
from typing import Any, Final

import orjson
from kombu.utils import json as kombu_json

from outbox_relay.errors import Denied, Unpublishable
from outbox_relay.message import Message

FRAME_END: Final = b"\xce"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
HEARTBEAT_FRAME: Final = bytes((HEARTBEAT, 0, 0, 0, 0, 0, 0)) + FRAME_END
#: class 60 (basic), method 40 (publish), and the reserved short before its arguments
BASIC_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
#: The one reserved name that is a property.
USER_ID: Final = "user_id"
#: the same class with a weight of zero, as a content header begins
BASIC: Final = 60 << 16

Encoder = Callable[[Any], bytes]
Encoders = tuple[tuple[str, Encoder], ...]

_frame = Struct(">BHI").pack  # type, channel, payload size
_header = Struct(">BHIIQ").pack  # the same, then class and weight, and the size of the body
_long = Struct(">I").pack
_longlong = Struct(">Q").pack
_signed_long = Struct(">i").pack
_signed_longlong = Struct(">q").pack
_double = Struct(">d").pack
_flags = Struct(">H").pack
#: Lengths looked up instead of packed: nearly every string in a header is shorter than this.
LENGTHS: Final = tuple(_long(n) for n in range(1024))
OCTETS: Final = tuple(bytes((n,)) for n in range(256))


def publish_frames(
    message: Message,
    channel: int,
    frame_max: int,
    now: float,
    reserved: Collection[str] = (),
) -> list[bytes]:
    """Method, header and body frames of one message, in pieces to be joined.

    `now` is on the clock of `message.born`. Raises Unpublishable, saying what is wrong; Denied over
    a header or property that is `reserved`.
    """
    try:
        route = _route(message.exchange, message.routing_key, message.mandatory, channel)
        try:
            properties = _properties(message, now, reserved)
        except _Vast:
            properties = _properties(message, now, reserved, exactly)
    except Denied:
        raise
    except Exception as error:  # whatever a row's text provokes is that row's fault, not ours
        raise Unpublishable(str(error) or type(error).__name__) from error
    if len(properties) + 20 > frame_max:
        raise Unpublishable(
            f"headers and properties take {len(properties)} bytes encoded, more than a frame "
            f"of this broker ({frame_max} bytes)"
        )
    body = message.body
    parts = [
        route,
        _header(HEADER, channel, 12 + len(properties), BASIC, len(body)),
        properties,
        FRAME_END,
    ]
    room = frame_max - 8
    if 0 < len(body) <= room:
        parts += (_frame(BODY, channel, len(body)), body, FRAME_END)
    else:
        for start in range(0, len(body), room):
            piece = body[start : start + room]
            parts += (_frame(BODY, channel, len(piece)), piece, FRAME_END)
    return parts


@lru_cache(maxsize=1024)
def _route(exchange: str, routing_key: str, mandatory: bool, channel: int) -> bytes:
    """The basic.publish method frame; few routes carry most messages."""
    arguments = _short(exchange) + _short(routing_key) + (b"\x01" if mandatory else b"\x00")
    payload = BASIC_PUBLISH + arguments
    return _frame(METHOD, channel, len(payload)) + payload + FRAME_END


@lru_cache(maxsize=256)
def _content(content_type: str, content_encoding: str) -> bytes:
    return _short(content_type) + _short(content_encoding)


def _properties(
    message: Message,
    now: float,
    reserved: Collection[str],
    read: Callable[[str], dict[str, Any]] | None = None,
) -> bytes:
    """Flags, then each property that is set, in the order of the flags."""
    read = read or loads
    given, headers = read(message.properties), read(message.headers)
    for name in reserved:
        # An application's own header may be called user_id: it means nothing to a broker.
        if (name in headers and name != USER_ID) or given.get(name) is not None:
            raise Denied(f"{name} is reserved, and not among OUTBOX_ALLOW_RESERVED")
    if "expiration" in given:
        given["expiration"] = _remaining(given["expiration"], now - message.born)
    if None in given.values():
        given = {name: value for name, value in given.items() if value is not None}
    flags, encoders = _properties_set(tuple(given))
    content = _content(message.content_type, message.content_encoding)
    parts = [flags, content, table(headers)]
    for name, encode in encoders:
        try:
            parts.append(encode(given[name]))
        except (ValueError, TypeError) as error:
            raise ValueError(f"property {name}: {error}") from error
    return b"".join(parts)


@lru_cache(maxsize=256)
def _properties_set(names: tuple[str, ...]) -> tuple[bytes, Encoders]:
    """The flags that announce these properties, and their encoders in AMQP's order."""
    if unknown := set(names) - {name for name, _, _ in PROPERTIES}:
        raise ValueError(f"properties has {min(unknown)!r}, which AMQP does not know")
    chosen = [(name, bit, encode) for name, bit, encode in PROPERTIES if name in names]
    return _flags(ALWAYS | sum(bit for _, bit, _ in chosen)), tuple(
        (name, encode) for name, _, encode in chosen
    )


def loads(text: str) -> dict[str, Any]:
    """A JSON object; kombu's tagged values (bytes, dates, decimals) become what they stand for."""
    value = kombu_json.loads(text) if '"__type__"' in text else orjson.loads(text)
    if not isinstance(value, dict):
        raise ValueError("headers and properties must be JSON objects")
    return value


def exactly(text: str) -> dict[str, Any]:
    """The same, slower, telling vast whole numbers from vast fractions."""
    value = kombu_json.loads(text, _loads=partial(json.loads, parse_float=_Fraction))
    if not isinstance(value, dict):
        raise ValueError("headers and properties must be JSON objects")
    return value


def _remaining(expiration: object, age: float) -> str:
    """Milliseconds left of a time-to-live that began when the row was written.

    AMQP's expiration is relative: without this, waiting in the outbox would prolong it.
    """
    if isinstance(expiration, bool) or not str(expiration).isdigit():
        raise ValueError("property expiration is not a number of milliseconds")
    return str(max(0, int(str(expiration)) - int(age * 1000)))


def _short(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where AMQP wants a string")
    encoded = value.encode()
    if len(encoded) > 255:
        raise ValueError(f"{len(encoded)} bytes where AMQP allows 255")
    return OCTETS[len(encoded)] + encoded


def _octet(value: object) -> bytes:
    if type(value) is not int or not 0 <= value <= 255:
        raise ValueError("it is not a number from 0 to 255")
    return OCTETS[value]


def _delivery_mode(value: object) -> bytes:
    if type(value) is not int or value not in (1, 2):
        raise ValueError("it is neither 1 (transient) nor 2 (persistent)")
    return OCTETS[value]


def _timestamp(value: object) -> bytes:
    if isinstance(value, datetime):
        return _longlong(int(value.timestamp()))
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("it is not a time in whole seconds")
    return _longlong(value)


#: Name, flag bit and encoder of each basic property a row may set, in the order AMQP has them.
PROPERTIES: Final[tuple[tuple[str, int, Encoder], ...]] = (
    ("delivery_mode", 1 << 12, _delivery_mode),
    ("priority", 1 << 11, _octet),
    ("correlation_id", 1 << 10, _short),
    ("reply_to", 1 << 9, _short),
    ("expiration", 1 << 8, _short),
    ("message_id", 1 << 7, _short),
    ("timestamp", 1 << 6, _timestamp),
    ("type", 1 << 5, _short),
    (USER_ID, 1 << 4, _short),
    ("app_id", 1 << 3, _short),
    ("cluster_id", 1 << 2, _short),
)
#: content_type, content_encoding and headers come first, and are columns of their own.
ALWAYS: Final = 0xE000


def table(values: dict[str, Any]) -> bytes:
    """A field table with its length, as in AMQP 0-9-1 section 4.2.5.5 with RabbitMQ's errata."""
    entries, tail = _shape(tuple(values), tuple(map(type, values.values())))
    parts: list[bytes] = []
    for prefix, key, encode in entries:
        if encode is _text:
            # The commonest kind in Celery's headers, spelt out: a call saved on each.
            encoded = values[key].encode()
            size = len(encoded)
            parts += (prefix, LENGTHS[size] if size < 1024 else _long(size), encoded)
        else:
            parts += (prefix, encode(values[key]))
    parts.append(tail)
    payload = b"".join(parts)
    return _long(len(payload)) + payload


@lru_cache(maxsize=1024)
def _shape(
    keys: tuple[str, ...], kinds: tuple[type, ...]
) -> tuple[tuple[tuple[bytes, str, Encoder], ...], bytes]:
    """What all tables of these keys and types share: the bytes between their values.

    A task's messages have one shape; its keys, nulls and type marks are joined once.
    """
    entries: list[tuple[bytes, str, Encoder]] = []
    constant = b""
    for key, kind in zip(keys, kinds, strict=True):
        constant += _key(key)
        if kind is type(None):
            constant += b"V"
            continue
        encode = FIELDS[kind]
        entries.append((constant + b"S" if encode is _text else constant, key, encode))
        constant = b""
    return tuple(entries), constant


def _key(key: str) -> bytes:
    try:
        return _short(key)
    except ValueError as error:
        raise ValueError(f"header name: {error}") from error


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"S" + _long(len(encoded)) + encoded


def _array(value: list[object]) -> bytes:
    if value == NO_LIMITS:
        return NO_LIMITS_ARRAY
    payload = b"".join([FIELDS[type(item)](item) for item in value])
    return b"A" + _long(len(payload)) + payload


def _nested(value: dict[str, Any]) -> bytes:
    return b"F" + table(value) if value else EMPTY_TABLE


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return SMALL_INTEGERS[value]
    if -0x7FFFFFFF <= value <= 0x7FFFFFFF:
        return b"I" + _signed_long(value)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a header holds a number that does not fit 64 bits")
    return b"l" + _signed_longlong(value)


class _Vast(Exception):
    """Transient: a number that may have been a whole one in the row; read the text again."""


class _Fraction(float):
    """A number that was written with a point or an exponent."""


def _float(value: float) -> bytes:
    # orjson reads whole numbers beyond 64 bits as the float next to them.
    if not -VAST < value < VAST and value.is_integer():
        raise _Vast
    return _fraction(value)


def _fraction(value: float) -> bytes:
    if not isfinite(value):
        raise ValueError(
            "a header holds NaN or an infinity: RabbitMQ closes the connection over it"
        )
    return b"d" + _double(value)


def _decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    unscaled = int("".join(map(str, digits)) or "0")
    if not isinstance(exponent, int) or not 0 <= -exponent <= 255 or unscaled > 0x7FFFFFFF:
        raise ValueError("a header holds a decimal of more digits than AMQP carries")
    return b"D" + OCTETS[-exponent] + _signed_long(-unscaled if sign else unscaled)


#: Beyond it a whole number has more than 64 bits.
VAST: Final = 2.0**63
#: What most tasks carry: `timelimit` without limits, `stamps` without stamps, counts near zero.
NO_LIMITS: Final = [None, None]
NO_LIMITS_ARRAY: Final = b"A\x00\x00\x00\x02VV"
EMPTY_TABLE: Final = b"F\x00\x00\x00\x00"
SMALL_INTEGERS: Final = tuple(b"I" + _signed_long(n) for n in range(256))


class _Fields(dict[type, Encoder]):
    """Encoders by exact type; a type without one is refused by name."""

    def __missing__(self, kind: type) -> Encoder:
        raise TypeError(f"a header holds a {kind.__name__}, which AMQP cannot carry")


#: How each type that JSON or kombu's tags can hold is written inside a table or an array.
FIELDS: Final = _Fields(
    {
        str: _text,
        bool: lambda value: b"t\x01" if value else b"t\x00",
        int: _integer,
        type(None): lambda _: b"V",
        float: _float,
        _Fraction: _fraction,
        dict: _nested,
        list: _array,
        tuple: _array,
        bytes: lambda value: b"S" + _long(len(value)) + value,
        datetime: lambda value: b"T" + _timestamp(value),
        Decimal: _decimal,
    }
)
