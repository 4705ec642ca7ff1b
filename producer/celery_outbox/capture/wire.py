"""Nothing gets past here that no relay could publish: limits of AMQP and of JSON in Postgres.

A message refused here fails in the code that sends it; stored, it would become a dead letter later.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from amqp.serialization import dumps as amqp_dumps
from kombu.utils.json import JSONEncoder

#: Short strings carry one length byte.
SHORT: Final = 255
#: The longest ordering_key or dedup_key, in bytes: they are kept in indexes.
MAX_KEY: Final = 200
#: The default frame of AMQP less its own bytes, the fixed part of the header and the properties,
#: which are twelve short strings at most.
MAX_HEADERS: Final = 131_072 - 8 - 14 - 12 * (SHORT + 1)
#: Encoded, a table is never twice as long as its JSON: shorter ones need no measuring.
SURELY_FITS: Final = MAX_HEADERS // 2

SHORT_STRINGS: Final = frozenset(
    {
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "expiration",
        "message_id",
        "type",
        "user_id",
        "app_id",
        "cluster_id",
    }
)
NUMBERS: Final = {"delivery_mode": (1, 2), "priority": (0, 255), "timestamp": (0, 2**63 - 1)}
PROPERTIES: Final = SHORT_STRINGS | NUMBERS.keys()

#: What AMQP has a type for, whatever the value.
CARRIED: Final = frozenset({str, bool, type(None)})
#: JSON escapes of what Postgres may be unable to turn into text: NUL, halves of a surrogate pair.
ESCAPED: Final = re.compile(r"\\u(?:0000|d[89a-f])")
SURROGATE: Final = re.compile("[\ud800-\udfff]")
#: The keys by which kombu's JSON marks what JSON has no type for.
TAG: Final = frozenset({"__type__", "__value__"})

#: As kombu.utils.json.dumps, without the cost of an encoder per call.
encode: Final = JSONEncoder().encode

Refuse = Callable[[str, str], Exception]


def short_string(field: str, value: object, refuse: Refuse) -> None:
    """Check that `value` is text of at most 255 bytes."""
    if type(value) is str and len(value) <= SHORT and value.isascii() and "\0" not in value:
        return  # nearly always
    if not isinstance(value, str):
        raise refuse(field, f"must be a string, not {type(value).__name__}")
    _storable(field, value, refuse)
    if len(value) > SHORT // 4 and len(value.encode()) > SHORT:
        raise refuse(field, f"is longer than {SHORT} bytes")


def key(field: str, value: object, refuse: Refuse) -> str | None:
    """Return the key of a lane or of a deduplication, checked, or None where there is none."""
    if value is None:
        return None
    short_string(field, value, refuse)
    text = str(value)
    if not text:
        raise refuse(field, "is empty")
    if len(text.encode()) > MAX_KEY:
        raise refuse(field, f"is longer than {MAX_KEY} bytes")
    return text


def properties_json(properties: Mapping[str, Any], refuse: Refuse) -> str:
    """Return the AMQP properties as JSON text, without those that are not set.

    Celery passes more (retry() an `origin`, stamping each stamp); on the wire they never are.
    """
    kept = {
        name: value
        for name, value in properties.items()
        if value is not None and name in PROPERTIES
    }
    for name, value in kept.items():
        if name in SHORT_STRINGS:
            short_string(name, value, refuse)
        elif name in NUMBERS:
            low, high = NUMBERS[name]
            if type(value) is not int or not low <= value <= high:
                raise refuse(name, f"must be an integer from {low} to {high}")
    if kept.get("expiration", "0").startswith("-"):
        raise refuse("expiration", "must not be negative")
    return _table(kept, "", refuse)


def headers_json(headers: Mapping[str, Any], refuse: Refuse) -> str:
    """Return the application headers as JSON text."""
    text = _table(headers, "header ", refuse)
    if len(text) > MAX_HEADERS or (
        len(text) > SURELY_FITS and len(amqp_dumps("F", (headers,))) > MAX_HEADERS
    ):
        raise refuse("headers", f"are larger than the {MAX_HEADERS} bytes one frame can carry")
    return text


def check_body(body: bytes, limit: int, refuse: Refuse) -> None:
    """Check that a broker takes a body of this size."""
    if len(body) > limit:
        problem = f"has {len(body)} bytes, more than the {limit} of outbox_max_body. Keep such data"
        problem += " elsewhere and send where it is; or raise outbox_max_body, and with it what the"
        raise refuse("the body", f"{problem} broker takes (RabbitMQ: max_message_size)")


def is_storable(text: str) -> bool:
    """Tell whether Postgres can keep `text` as text."""
    return "\0" not in text and (text.isascii() or not SURROGATE.search(text))


def escape(text: str) -> str:
    """Return `text` with what Postgres has no text for written as Python would."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _table(table: Mapping[str, Any], where: str, refuse: Refuse) -> str:
    try:
        return _checked(table, where, refuse)
    except RecursionError:
        pass
    raise refuse(where.strip() + "s" if where else "properties", "are nested too deeply")


def _checked(table: Mapping[str, Any], where: str, refuse: Refuse) -> str:
    for key, value in table.items():
        if type(value) not in CARRIED or type(key) is not str or len(key) > SHORT // 4:
            _check(f"{where}{key}", key, value, refuse)
    text = encode(table)
    if ESCAPED.search(text):
        _storable_throughout(where, table, refuse)
    return text


def _check(path: str, key: object, value: object, refuse: Refuse) -> None:
    """Check that AMQP has a type for `value`, and its JSON a way back to it."""
    if type(key) is not str or len(key) > SHORT // 4:
        short_string(f"the name of {path}", key, refuse)
    if value is None or isinstance(value, str | bool | bytes):
        return
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise refuse(path, "is an integer beyond 64 bits")
    elif isinstance(value, dict):
        if value.keys() == TAG:
            raise refuse(path, "has just the keys __type__ and __value__, which mark a coded value")
        for name, item in value.items():
            _check(f"{path}.{name}", name, item, refuse)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check(f"{path}[{number}]", "", item, refuse)
    else:
        _check_rare(path, value, refuse)


def _check_rare(path: str, value: object, refuse: Refuse) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise refuse(path, "is not finite: JSON and brokers have no number for it")
    elif isinstance(value, datetime):
        if value.year < 1970:
            raise refuse(path, "is a time before 1970, which AMQP has no number for")
    elif isinstance(value, Decimal):
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int) or not -255 <= exponent <= 0 or len(digits) > 9:
            raise refuse(path, "is beyond what AMQP has a decimal for: nine digits, no exponent")
    else:
        raise refuse(path, f"is of type {type(value).__name__}, which AMQP has no type for")


def _storable_throughout(path: str, value: object, refuse: Refuse) -> None:
    """Name the text within `value` that Postgres could not hand out again."""
    if isinstance(value, str):
        _storable(path, value, refuse)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            _storable(f"the name of {path}{name}", name, refuse)
            _storable_throughout(f"{path}{name}", item, refuse)
    elif isinstance(value, list | tuple):
        for item in value:
            _storable_throughout(path, item, refuse)
    elif isinstance(value, bytes):
        # Coded as text where it is UTF-8, and then subject to the same rule.
        _storable(path, value.decode(errors="ignore"), refuse)


def _storable(field: str, text: str, refuse: Refuse) -> None:
    if not is_storable(text):
        raise refuse(field, "has a NUL, or half a surrogate pair, which Postgres has no text for")
