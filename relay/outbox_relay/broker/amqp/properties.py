"""The properties of a message, headers among them, as they stand in a content header.

What is said of one that cannot be encoded names it, and not its value, because it will be logged.
"""

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from outbox_relay.broker.amqp.fields import (
    OCTETS,
    Encoder,
    Vast,
    exactly,
    loads,
    short,
    table,
    timestamp,
)
from outbox_relay.core.message import Message
from outbox_relay.errors import Denied

#: The one reserved name that is a property.
USER_ID: Final = "user_id"
NOTHING_RESERVED: Final[frozenset[str]] = frozenset()

_flags = Struct(">H").pack


def content_of(message: Message) -> bytes:
    """The two properties that are columns of their own, and always set."""
    return _content(message.content_type, message.content_encoding)


@lru_cache(maxsize=256)
def _content(content_type: str, content_encoding: str) -> bytes:
    return short(content_type) + short(content_encoding)


def encoded(message: Message, now: float, reserved: frozenset[str] = NOTHING_RESERVED) -> bytes:
    """Flags, then each property that is set, in the order of the flags.

    `now` is on the clock of `message.born`. Raises Denied over a header or property that is
    `reserved`, and ValueError, TypeError and others over what cannot be encoded.
    """
    try:
        return _encoded(message, now, reserved, loads)
    except Vast:
        return _encoded(message, now, reserved, exactly)


def _encoded(
    message: Message,
    now: float,
    reserved: frozenset[str],
    read: Callable[[bytes], dict[str, Any]],
) -> bytes:
    given, headers = read(message.properties), read(message.headers)
    if not headers.keys().isdisjoint(reserved):
        # An application's own header may be called user_id: it means nothing to a broker.
        _deny((reserved - {USER_ID}).intersection(headers))
    if "expiration" in given:
        given["expiration"] = _remaining(given["expiration"], now - message.born)
    flags, encoders, denied = properties_set(
        tuple(given), tuple(map(type, given.values())), reserved
    )
    if denied:
        _deny(denied)
    parts = [flags, content_of(message), table(headers)]
    name = ""
    try:
        for name, encode in encoders:
            parts.append(encode(given[name]))
    except (ValueError, TypeError) as error:
        raise ValueError(f"property {name}: {error}") from error
    return b"".join(parts)


@lru_cache(maxsize=256)
def properties_set(
    names: tuple[str, ...],
    kinds: tuple[type, ...],
    reserved: frozenset[str] = NOTHING_RESERVED,
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
