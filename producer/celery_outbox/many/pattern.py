"""What messages that were sent alike have in common, learned from one, and filled in for others.

The text of headers and properties is cut where the id and the arguments stand. What is filled in
there is, byte for byte, what Celery would have made: whoever learns a pattern tries it on a message
that went the long way.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

from kombu import serialization
from kombu.compression import compress
from kombu.utils import json as kombu_json

from celery_outbox.capture import wire
from celery_outbox.many.noting import Sent
from celery_outbox.many.shown import Show
from celery_outbox.message import Filled, Message

#: The longest text of headers that is filled in: none of these can be too large for a frame.
MAX_TEMPLATE: Final = 16_384
#: How kombu makes a body, by the name of the serialiser.
_encoders: Final = vars(serialization)["registry"]._encoders
#: What stands in a template for an id, the positional and the named arguments.
ID, ARGS, KWARGS = (f"\ufffe{name}\ufffe" for name in ("id", "args", "kwargs"))
PLACES: Final = {json.dumps(each): f"%({each[1:-1]})s" for each in (ID, ARGS, KWARGS)}
#: Where headers show the arguments.
SHOWN: Final = {"argsrepr": ARGS, "kwargsrepr": KWARGS}
#: Times, which differ from one call to the next where they are counted from now.
TIMES: Final = {"eta": "", "expires": "", "expiration": ""}


@dataclass(frozen=True, slots=True)
class Making:
    """How a body is made, and shown, whatever the message."""

    serializer: str | None
    compression: str | None
    show: Show
    max_body: int


class Pattern:
    """The one that a message follows. Raises ValueError where it cannot be told from it."""

    def __init__(self, sent: Sent, making: Making) -> None:
        self.like: Message = sent.stored
        self._making = making
        args, kwargs, embedded = sent.body
        self._embedded = embedded
        task_id = sent.stored.message_id
        self._headers = _template(sent.stored.headers, task_id, SHOWN)
        self._properties = _template(sent.stored.properties, task_id, {})
        self._body = self._json_body() if self._is_plain_json else self._any_body
        if self.fill(sent.stored.message_id, args, kwargs) != _filled(sent.stored):
            raise ValueError("another message is made than the one that was sent")

    def is_like(self, other: "Pattern") -> bool:
        """Tell whether messages by either are the same, times aside."""
        return self._compared == other._compared

    @property
    def _compared(self) -> tuple[Any, ...]:
        common = replace(
            self.like, message_id="", headers="", properties="", body=b"", available_at=None,
            expires_at=None,
        )  # fmt: skip
        texts = [json.loads(text % _NAMES) for text in (self._headers, self._properties)]
        timeless = [each | {k: v for k, v in TIMES.items() if each.get(k)} for each in texts]
        return common, timeless, self._embedded

    def fill(self, task_id: str, args: Any, kwargs: Any) -> Filled | None:
        """Return what is the message's own; None where it must go the long way.

        Raises what the serialiser raises.
        """
        show = self._making.show
        shown_args, shown_kwargs = show(args), show(kwargs)
        if not wire.is_storable(shown_args):
            shown_args = wire.escape(shown_args)
        if not wire.is_storable(shown_kwargs):
            shown_kwargs = wire.escape(shown_kwargs)
        given = {"id": f'"{task_id}"', "args": quoted(shown_args), "kwargs": quoted(shown_kwargs)}
        body = self._body(args, kwargs)
        headers = self._headers % given
        if len(headers) > wire.SURELY_FITS or len(body) > self._making.max_body:
            return None
        return Filled(task_id, headers, self._properties % given, body)

    @property
    def _is_plain_json(self) -> bool:
        """Whether bodies are JSON as kombu makes it, and nothing besides."""
        name = self._making.serializer
        return (
            name == "json"
            and not self._making.compression
            and _encoders[name].encoder is kombu_json.dumps
        )

    def _json_body(self) -> Callable[[Any, Any], bytes]:
        encode, rest = wire.encode, f", {wire.encode(self._embedded)}]"

        def body(args: Any, kwargs: Any) -> bytes:
            return (encode((args, kwargs))[:-1] + rest).encode()

        return body

    def _any_body(self, args: Any, kwargs: Any) -> bytes:
        whole = (args, kwargs, self._embedded)
        made: Any = serialization.dumps(whole, serializer=self._making.serializer)
        content_type, encoding, body = made
        if (content_type, encoding) != (self.like.content_type, self.like.content_encoding):
            raise ValueError("its serialiser is another one")
        if self._making.compression:
            body, _ = compress(body, self._making.compression)
        return body.encode(encoding) if isinstance(body, str) else bytes(body)


_NAMES: Final = {name: json.dumps(name) for name in ("id", "args", "kwargs")}


def _filled(message: Message) -> Filled:
    return Filled(message.message_id, message.headers, message.properties, message.body)


def _template(text: str, task_id: str, more: dict[str, str]) -> str:
    """Cut a JSON object where it has the id, and `more`: a place for each of some names."""
    table = json.loads(text)
    if len(text) > MAX_TEMPLATE or json.dumps(table) != text:
        raise ValueError("it is too long, or not as written here")
    table = {name: ID if value == task_id else value for name, value in table.items()} | more
    found = json.dumps(table).replace("%", "%%")
    return re.sub("|".join(map(re.escape, PLACES)), lambda each: PLACES[each.group()], found)
