"""A message as AMQP 0-9-1 frames: the bytes py-amqp would send.

Written out by hand because it is the relay's hottest path: a seventh of py-amqp's cost. What a
frame cannot carry is refused here, before it can close the channel under its neighbours; what is
said of it names the field and not the value, because it will be logged.
"""

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from outbox_relay.amqp.fields import OCTETS, Encoder, Vast, exactly, loads, short, table, timestamp
from outbox_relay.errors import Denied, Unpublishable
from outbox_relay.message import Message

FRAME_END: Final = b"\xce"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
HEARTBEAT_FRAME: Final = bytes((HEARTBEAT, 0, 0, 0, 0, 0, 0)) + FRAME_END
#: class 60 (basic), method 40 (publish), and the reserved short before its arguments
BASIC_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
#: the same class with a weight of zero, as a content header begins
BASIC: Final = 60 << 16
#: channel.close with a reply code of 200, no text and nobody to blame; the answer to the broker's
CLOSE: Final = b"\0\x14\0\x28\0\xc8\0\0\0\0\0"
CLOSE_OK: Final = b"\0\x14\0\x29"
#: The one reserved name that is a property.
USER_ID: Final = "user_id"
NOTHING_RESERVED: Final[frozenset[str]] = frozenset()

_frame = Struct(">BHI").pack  # type, channel, payload size
_header = Struct(">BHIIQ").pack  # the same, then class and weight, and the size of the body
_flags = Struct(">H").pack


def reopening_frames(old: int, fresh: int, farewell: bytes) -> bytes:
    """End a channel by CLOSE or CLOSE_OK and begin another that confirms: open, confirm.select."""
    methods = ((old, farewell), (fresh, b"\0\x14\0\x0a\0"), (fresh, b"\0\x55\0\x0a\0"))
    return b"".join(
        _frame(METHOD, channel, len(method)) + method + FRAME_END for channel, method in methods
    )


def publish_frames(
    message: Message,
    channel: int,
    frame_max: int,
    now: float,
    reserved: frozenset[str] = NOTHING_RESERVED,
) -> list[bytes]:
    """Method, header and body frames of one message, in pieces to be joined.

    `now` is on the clock of `message.born`. Raises Unpublishable, saying what is wrong; Denied over
    a header or property that is `reserved`.
    """
    try:
        route = _route(message.exchange, message.routing_key, message.mandatory, channel)
        try:
            properties = _properties(message, now, reserved, loads)
        except Vast:
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
    arguments = short(exchange) + short(routing_key) + (b"\x01" if mandatory else b"\x00")
    payload = BASIC_PUBLISH + arguments
    return _frame(METHOD, channel, len(payload)) + payload + FRAME_END


@lru_cache(maxsize=256)
def _content(content_type: str, content_encoding: str) -> bytes:
    return short(content_type) + short(content_encoding)


def _properties(
    message: Message,
    now: float,
    reserved: frozenset[str],
    read: Callable[[str], dict[str, Any]],
) -> bytes:
    """Flags, then each property that is set, in the order of the flags."""
    given, headers = read(message.properties), read(message.headers)
    if not headers.keys().isdisjoint(reserved):
        # An application's own header may be called user_id: it means nothing to a broker.
        _deny((reserved - {USER_ID}).intersection(headers))
    if "expiration" in given:
        given["expiration"] = _remaining(given["expiration"], now - message.born)
    flags, encoders, denied = _properties_set(
        tuple(given), tuple(map(type, given.values())), reserved
    )
    if denied:
        _deny(denied)
    content = _content(message.content_type, message.content_encoding)
    parts = [flags, content, table(headers)]
    name = ""
    try:
        for name, encode in encoders:
            parts.append(encode(given[name]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"property {name}: {error}") from error
    return b"".join(parts)


@lru_cache(maxsize=256)
def _properties_set(
    names: tuple[str, ...], kinds: tuple[type, ...], reserved: frozenset[str]
) -> tuple[bytes, tuple[tuple[str, Encoder], ...], frozenset[str]]:
    """The flags that announce these properties, their encoders in AMQP's order, and the denied."""
    if unknown := set(names) - {name for name, _, _ in PROPERTIES}:
        raise ValueError(f"properties has {min(unknown)!r}, which AMQP does not know")
    given = {name for name, kind in zip(names, kinds, strict=True) if kind is not type(None)}
    chosen = [(name, bit, encode) for name, bit, encode in PROPERTIES if name in given]
    flags = _flags(ALWAYS | sum(bit for _, bit, _ in chosen))
    return flags, tuple((name, encode) for name, _, encode in chosen), reserved & given


def _deny(names: frozenset[str]) -> None:
    if names:
        raise Denied(f"{min(names)} is reserved, and not among OUTBOX_ALLOW_RESERVED")


def _remaining(expiration: object, age: float) -> str:
    """Milliseconds left of a time-to-live that began when the row was written.

    AMQP's expiration is relative: without this, waiting in the outbox would prolong it.
    """
    if isinstance(expiration, bool) or not str(expiration).isdigit():
        raise ValueError("property expiration is not a number of milliseconds")
    return str(max(0, int(str(expiration)) - int(age * 1000)))


def _octet(value: object) -> bytes:
    if type(value) is not int or not 0 <= value <= 255:
        raise ValueError("it is not a number from 0 to 255")
    return OCTETS[value]


def _delivery_mode(value: object) -> bytes:
    if type(value) is not int or value not in (1, 2):
        raise ValueError("it is neither 1 (transient) nor 2 (persistent)")
    return OCTETS[value]


#: Name, flag bit and encoder of each basic property a row may set, in the order AMQP has them.
PROPERTIES: Final[tuple[tuple[str, int, Encoder], ...]] = (
    ("delivery_mode", 1 << 12, _delivery_mode),
    ("priority", 1 << 11, _octet),
    ("correlation_id", 1 << 10, short),
    ("reply_to", 1 << 9, short),
    ("expiration", 1 << 8, short),
    ("message_id", 1 << 7, short),
    ("timestamp", 1 << 6, timestamp),
    ("type", 1 << 5, short),
    (USER_ID, 1 << 4, short),
    ("app_id", 1 << 3, short),
    ("cluster_id", 1 << 2, short),
)
#: content_type, content_encoding and headers come first, and are columns of their own.
ALWAYS: Final = 0xE000
