"""What messages of one shape have in common is encoded once, as a template to be filled in.

A producer writes a task's headers always alike: the same names in the same order, with values of
which few differ. A template is a pattern for the text of such headers and properties, and the bytes
that stand between the values it finds there. It is made of a message that was encoded the long way,
and only if its own bytes are the same; whatever no template matches goes the long way.
"""

import json
import re
from collections.abc import Mapping
from operator import getitem
from typing import Any, Final

import orjson

from outbox_relay.broker.amqp.fields import FIELDS, LENGTHS, OCTETS, TAG, Vast, long, short
from outbox_relay.broker.amqp.properties import content_of, properties_set
from outbox_relay.core.message import Message

#: The most templates that are kept: those that matched last.
MAX_TEMPLATES: Final = 8
#: A template is made of one in so many messages that match none; of more of the first ones.
LEARN_EVERY: Final = 64
#: No template is made of a longer text: compiling its pattern would cost more than it could save.
MAX_TEXT_BYTES: Final = 8192
#: Numbers of so many characters vary from message to message; shorter ones count or choose.
VARYING: Final = 3
#: A text that stands between its quotes as it is; and a number.
TEXT: Final = rb'"([^"\\]*)"'
NUMBER: Final = rb"(-?[0-9][0-9.eE+-]*)"

#: What is to be joined, and the size it will have.
Pieces = tuple[list[bytes], int]


class Template:
    """One shape. Each value has a place between two constants, after the bytes of its length."""

    def __init__(self, headers: dict[str, Any], properties: dict[str, Any]) -> None:
        """Raises what encoding a value raises."""
        flags, encoders, _ = properties_set(
            tuple(properties), tuple(map(type, properties.values()))
        )
        self._parts = [flags, b"", b"", b""]  # then the content type, the table's length, constant
        self._numbers: list[int] = []
        texts = 0
        for key, value in headers.items():
            self._parts[-1] += short(key)
            if type(value) is str:
                self._parts[-1] += b"S"
                self._parts += (b"", b"", b"")
                texts += 1
            elif _varies(value):
                self._numbers.append((len(self._parts) - 4) // 3)
                self._parts += (b"", b"", b"")
            else:
                self._parts[-1] += FIELDS[type(value)](value)
        self._headers = (len(self._parts) - 4) // 3
        self._table = sum(map(len, self._parts[3:])) + 4 * texts
        for name, encode in encoders:
            if type(properties[name]) is str:
                self._parts += (b"", b"", b"")
            else:
                self._parts[-1] += encode(properties[name])
        shorts = (len(self._parts) - 4) // 3 - self._headers
        self._size = sum(map(len, self._parts)) + 4 + 4 * texts + shorts
        self._lengths = [LENGTHS] * self._headers + [OCTETS] * shorts
        pattern = _pattern(headers, numbers=True) + _pattern(properties, numbers=False)
        self._match = re.compile(pattern).fullmatch

    def fill(self, text: bytes, content: bytes) -> Pieces | None:
        """The properties of a message of this shape: `text` is its headers and its properties."""
        found = self._match(text)
        if found is None:
            return None
        values: list[bytes] = [*found.groups()]
        try:
            for place in self._numbers:
                number = orjson.loads(values[place])
                values[place] = FIELDS[type(number)](number)
            sizes = [*map(len, values)]
            parts = self._parts.copy()
            parts[4::3] = map(getitem, self._lengths, sizes)
        except (IndexError, ValueError, Vast):  # too long or too large for a template
            return None
        for place in self._numbers:
            parts[4 + 3 * place] = b""
        parts[5::3] = values
        parts[1] = content
        size = sum(sizes)
        parts[2] = long(self._table + size - sum(sizes[self._headers :]))
        return parts, self._size + len(content) + size


class Templates:
    """The templates that matched last, the newest match first."""

    def __init__(self) -> None:
        self._templates: list[Template] = []
        self._missed = 0

    def fill(self, message: Message) -> Pieces | None:
        """The properties of a message whose shape is known."""
        text = message.headers + message.properties
        if b"\\" in text:
            return None
        content = content_of(message)
        for place, template in enumerate(self._templates):
            if pieces := template.fill(text, content):
                if place:
                    self._templates.insert(0, self._templates.pop(place))
                return pieces
        return None

    def learn(self, message: Message, properties: bytes) -> None:
        """Make a template of what was encoded the long way, if one is due and can be made."""
        self._missed += 1
        if self._missed % LEARN_EVERY and self._missed & (self._missed - 1):
            return
        if template := _template_of(message, properties):
            self._templates.insert(0, template)
            del self._templates[MAX_TEMPLATES:]


def _template_of(message: Message, properties: bytes) -> Template | None:
    text = message.headers + message.properties
    if b"\\" in text or TAG in text or len(text) > MAX_TEXT_BYTES:
        return None
    headers, given = orjson.loads(message.headers), orjson.loads(message.properties)
    # What is left of a time-to-live depends on the time.
    if "expiration" in given or json.dumps(headers) + json.dumps(given) != text.decode():
        return None
    template = Template(headers, given)
    pieces = template.fill(text, content_of(message))
    return template if pieces and b"".join(pieces[0]) == properties else None


def _varies(value: object) -> bool:
    return type(value) in (int, float) and len(json.dumps(value)) >= VARYING


def _pattern(values: Mapping[str, Any], *, numbers: bool) -> bytes:
    """What matches an object of these names and kinds of values, as json.dumps writes it."""
    members = []
    for name, value in values.items():
        if type(value) is str:
            pattern = TEXT
        elif numbers and _varies(value):
            pattern = NUMBER
        else:
            pattern = re.escape(json.dumps(value).encode())
        members.append(re.escape(json.dumps(name).encode()) + b": " + pattern)
    return rb"\{" + b", ".join(members) + rb"\}"
