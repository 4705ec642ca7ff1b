"""A message as kombu puts it into Redis: a JSON envelope around the body in base64.

The stored headers and properties are kombu's own JSON text, so they are copied, not decoded: exact,
and the relay's hottest path.
"""

import json
from binascii import b2a_base64
from functools import lru_cache
from typing import Final

from outbox_relay.core.message import Message
from outbox_relay.errors import Unpublishable

#: The largest value Redis keeps, and by default the largest it reads (proto-max-bulk-len).
MAX_VALUE_BYTES: Final = 512 << 20
PRIORITY: Final = b'"priority": '
#: The priorities AMQP knows, as JSON has them.
LEVELS: Final = {b"%d" % level: level for level in range(256)}


def envelope(message: Message, tag: bytes) -> tuple[int, bytes]:
    """The message's priority and its envelope, in which `tag` names the copy for its worker.

    Raises Unpublishable, saying what is wrong.
    """
    headers = message.headers
    if headers[:1] != b"{" or message.properties[:1] != b"{":
        raise Unpublishable("headers and properties must be JSON objects")
    properties, priority = _without_priority(message.properties)
    before, between, after = _fixed(
        message.content_encoding,
        message.content_type,
        message.exchange,
        message.routing_key,
        priority,
    )
    body = b2a_base64(message.body, newline=False)
    whole = b"".join(
        (b'{"body": "', body, before, headers, between, properties, after, tag, b'"}}')
    )
    if len(whole) > MAX_VALUE_BYTES:
        raise Unpublishable(f"it takes {len(whole)} bytes, more than Redis keeps in one value")
    return priority, whole


def delivery_tags(random: bytes, count: int) -> list[bytes]:
    """So many distinct version 4 UUIDs, made of the same nine random bytes and a number each."""
    text = random.hex()
    common = f"{text[:8]}-{text[8:12]}-4{text[12:15]}-a{text[15:18]}-".encode()
    return [b"%b%012x" % (common, number) for number in range(count)]


@lru_cache(maxsize=1024)
def _fixed(
    encoding: str, type_: str, exchange: str, routing_key: str, priority: int
) -> tuple[bytes, bytes, bytes]:
    """What all messages of a kind have in common: before, between and after what differs."""
    types = f'"content-encoding": {json.dumps(encoding)}, "content-type": {json.dumps(type_)}'
    route = json.dumps({"exchange": exchange, "routing_key": routing_key})
    after = (
        f'"delivery_info": {route}, "priority": {priority}, "body_encoding": "base64", '
        '"delivery_tag": "'
    )
    return f'", {types}, "headers": '.encode(), b', "properties": ', after.encode()


def _without_priority(properties: bytes) -> tuple[bytes, int]:
    """The text of an object that more members may follow, and the priority it had."""
    start, found, end = properties.rpartition(PRIORITY)
    # As kombu writes it: the last member, a number.
    if found and end[:-1] in LEVELS and (start == b"{" or start[-2:] == b", "):
        return start, LEVELS[end[:-1]]
    if b'"priority"' not in properties:
        text = properties.rstrip()[:-1].rstrip()
        return (text if text == b"{" else text + b", "), 0
    try:
        members = json.loads(properties)
        priority = members.pop("priority", 0)  # the word may be elsewhere, in a value
        text = json.dumps(members).encode()
    except Exception as error:  # whatever a row's text provokes is that row's fault, not ours
        # Not in its own words, which may repeat the text.
        raise Unpublishable(f"properties cannot be read: {type(error).__name__}") from error
    if type(priority) is not int or not 0 <= priority <= 255:
        raise Unpublishable("property priority: it is not a number from 0 to 255")
    return (text[:-1] + b", " if members else b"{"), priority
