"""JSON values as AMQP 0-9-1 field tables (section 4.2.5.5, with RabbitMQ's errata).

The bytes py-amqp would send, but `l` for its `L` (64 bits). What is said of a value that cannot be
written names no value, because it will be logged.
"""

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache, partial
from math import isfinite
from struct import Struct
from typing import Any, Final

import orjson
from kombu.utils import json as kombu_json

Encoder = Callable[[Any], bytes]

long = Struct(">I").pack
_longlong = Struct(">Q").pack
_signedlong = Struct(">i").pack
_signed_longlong = Struct(">q").pack
_double = Struct(">d").pack
#: Lengths looked up instead of packed: nearly every string in a header is shorter than this.
LENGTHS: Final = tuple(long(n) for n in range(2048))
OCTETS: Final = tuple(bytes((n,)) for n in range(256))


#: By this name kombu marks an object that stands for a value JSON lacks.
TAG: Final = b'"__type__"'


class Vast(Exception):
    """Transient: a number that may be a whole one in the row; read the text `exactly`."""


class Fraction(float):
    """A number that was written with a point or an exponent."""


def loads(text: bytes) -> dict[str, Any]:
    """A JSON object; kombu's tagged values (bytes, dates, decimals) become what they stand for."""
    value = _tagged(text) if TAG in text else orjson.loads(text)
    if not isinstance(value, dict):
        raise ValueError("headers and properties must be JSON objects")
    return value


def exactly(text: bytes) -> dict[str, Any]:
    """The same, slower, telling vast whole numbers from vast fractions."""
    value = _tagged(text, _loads=partial(json.loads, parse_float=Fraction))
    if not isinstance(value, dict):
        raise ValueError("headers and properties must be JSON objects")
    return value


def _tagged(text: bytes, **options: Any) -> Any:
    try:
        return kombu_json.loads(text, **options)
    except Exception as error:  # it would repeat the value
        kind = type(error).__name__
        raise ValueError(f"a header or property is not what its tag says: {kind}") from error


def short(value: object) -> bytes:
    """A short string, with its length."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where AMQP wants a string")
    encoded = value.encode()
    if len(encoded) > 255:
        raise ValueError(f"{len(encoded)} bytes where AMQP allows 255")
    return OCTETS[len(encoded)] + encoded


def timestamp(value: object) -> bytes:
    """Whole seconds since 1970."""
    if isinstance(value, datetime):
        return _longlong(int(value.timestamp()))
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise ValueError("it is not a time in whole seconds")
    return _longlong(value)


def table(values: dict[str, Any]) -> bytes:
    """A field table, with its length."""
    entries, tail = _shape(tuple(values), tuple(map(type, values.values())))
    parts: list[bytes] = []
    for prefix, key, encode in entries:
        if encode is _text:
            # Inlined, because most headers of Celery are texts.
            encoded = values[key].encode()
            size = len(encoded)
            parts += (prefix, LENGTHS[size] if size < len(LENGTHS) else long(size), encoded)
        else:
            parts += (prefix, encode(values[key]))
    parts.append(tail)
    payload = b"".join(parts)
    return long(len(payload)) + payload


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
        return short(key)
    except ValueError as error:
        raise ValueError(f"header name: {error}") from error


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"S" + long(len(encoded)) + encoded


def _array(value: list[object]) -> bytes:
    if value == NO_LIMITS:
        return NO_LIMITS_ARRAY
    payload = b"".join([FIELDS[type(item)](item) for item in value])
    return b"A" + long(len(payload)) + payload


def _nested(value: dict[str, Any]) -> bytes:
    return b"F" + table(value) if value else EMPTY_TABLE


def _integer(value: int) -> bytes:
    if 0 <= value < 256:
        return SMALL_INTEGERS[value]
    if -0x7FFFFFFF <= value <= 0x7FFFFFFF:
        return b"I" + _signedlong(value)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("a header holds a number that does not fit 64 bits")
    return b"l" + _signed_longlong(value)


def _float(value: float) -> bytes:
    # orjson reads whole numbers beyond 64 bits as the float next to them.
    if not -VAST < value < VAST and value.is_integer():
        raise Vast
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
    return b"D" + OCTETS[-exponent] + _signedlong(-unscaled if sign else unscaled)


#: Beyond it a whole number has more than 64 bits.
VAST: Final = 2.0**63
#: What most tasks carry: `timelimit` without limits, `stamps` without stamps, counts near zero.
NO_LIMITS: Final = [None, None]
NO_LIMITS_ARRAY: Final = b"A\x00\x00\x00\x02VV"
EMPTY_TABLE: Final = b"F\x00\x00\x00\x00"
SMALL_INTEGERS: Final = tuple(b"I" + _signedlong(n) for n in range(256))


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
        Fraction: _fraction,
        dict: _nested,
        list: _array,
        tuple: _array,
        bytes: lambda value: b"S" + long(len(value)) + value,
        datetime: lambda value: b"T" + timestamp(value),
        Decimal: _decimal,
    }
)
