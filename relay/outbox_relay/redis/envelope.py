"""A message as kombu puts it into Redis: a JSON envelope around the body in base64.

The stored headers and properties are kombu's own JSON text, so they are copied, not decoded: exact,
and the relay's hottest path.
"""

import json
from binascii import b2a_base64
from functools import lru_cache
from typing import Final

from outbox_relay.errors import Unpublishable
from outbox_relay.message import Message

#: The largest value Redis keeps, and by default the largest it reads (proto-max-bulk-len).
LARGEST: Final = 512 << 20
PRIORITY: Final = '"priority": '
#: The priorities AMQP knows, as JSON has them.
LEVELS: Final = {str(level): level for level in range(256)}


def envelope(message: Message, tag: str) -> tuple[int, bytes]:
    """The message's priority and its envelope, in which `tag` names the copy for its worker.

    Raises Unpublishable, saying what is wrong.
    """
    headers = message.headers.decode()
    if headers[:1] != "{" or message.properties[:1] != b"{":
        raise Unpublishable("headers and properties must be JSON objects")
    properties, priority = _without_priority(message.properties.decode())
    types, route = _fixed(
        message.content_encoding, message.content_type, message.exchange, message.routing_key
    )
    text = (
        f'", {types}, "headers": {headers}, "properties": {properties}{route}, '
        f'"priority": {priority}, "body_encoding": "base64", "delivery_tag": "{tag}"}}}}'
    )
    whole = b"".join((b'{"body": "', b2a_base64(message.body, newline=False), text.encode()))
    if len(whole) > LARGEST:
        raise Unpublishable(f"it takes {len(whole)} bytes, more than Redis keeps in one value")
    return priority, whole


def delivery_tags(random: bytes, count: int) -> list[str]:
    """So many version 4 UUIDs, all different: nine random bytes for all, and a number for each."""
    text = random.hex()
    common = f"{text[:8]}-{text[8:12]}-4{text[12:15]}-a{text[15:18]}-"
    return [f"{common}{number:012x}" for number in range(count)]


@lru_cache(maxsize=1024)
def _fixed(encoding: str, type_: str, exchange: str, routing_key: str) -> tuple[str, str]:
    """What all messages of a kind have in common."""
    types = f'"content-encoding": {json.dumps(encoding)}, "content-type": {json.dumps(type_)}'
    route = json.dumps({"exchange": exchange, "routing_key": routing_key})
    return types, f'"delivery_info": {route}'


def _without_priority(properties: str) -> tuple[str, int]:
    """The text of an object that more members may follow, and the priority it had."""
    start, found, end = properties.rpartition(PRIORITY)
    # As kombu writes it: the last member, a number.
    if found and end[:-1] in LEVELS and (start == "{" or start[-2:] == ", "):
        return start, LEVELS[end[:-1]]
    if '"priority"' not in properties:
        members = properties.rstrip()[:-1].rstrip()
        return (members if members == "{" else f"{members}, "), 0
    try:
        members = json.loads(properties)
        priority = members.pop("priority", 0)  # the word may be elsewhere, in a value
        text = json.dumps(members)
    except Exception as error:  # whatever a row's text provokes is that row's fault, not ours
        # Not in its own words, which may repeat the text.
        raise Unpublishable(f"properties cannot be read: {type(error).__name__}") from error
    if type(priority) is not int or not 0 <= priority <= 255:
        raise Unpublishable("property priority: it is not a number from 0 to 255")
    return (f"{text[:-1]}, " if members else "{"), priority
