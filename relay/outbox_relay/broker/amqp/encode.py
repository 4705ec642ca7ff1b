"""A message as AMQP 0-9-1 frames: the bytes py-amqp would send.

Written out by hand because it is the relay's hottest path: a tenth of py-amqp's cost. What a
frame cannot carry is refused here, before it can close the channel under its neighbours; what is
said of it names the field and not the value, because it will be logged.
"""

from functools import lru_cache
from struct import Struct
from typing import Final

from outbox_relay.broker.amqp.fields import short
from outbox_relay.broker.amqp.properties import NOTHING_RESERVED, encoded
from outbox_relay.broker.amqp.templates import Templates
from outbox_relay.core.message import Message
from outbox_relay.errors import Denied, Unpublishable

FRAME_END: Final = b"\xce"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
HEARTBEAT_FRAME: Final = bytes((HEARTBEAT, 0, 0, 0, 0, 0, 0)) + FRAME_END
#: class 60 (basic), method 40 (publish), and the reserved short before its arguments
BASIC_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
#: the same class with a weight of zero, as a content header begins
BASIC: Final = 60 << 16

_frame = Struct(">BHI").pack  # type, channel, payload size
_header = Struct(">BHIIQ").pack  # the same, then class and weight, and the size of the body


def channel_opening_frames(channel: int) -> bytes:
    """Begin a channel that confirms: channel.open, confirm.select."""
    return method_frame(channel, b"\0\x14\0\x0a\0") + method_frame(channel, b"\0\x55\0\x0a\0")


def channel_closing_frame(channel: int) -> bytes:
    """End a channel: channel.close with a reply code of 200, no text and no method."""
    return method_frame(channel, b"\0\x14\0\x28\0\xc8\0\0\0\0\0")


def channel_closed_frame(channel: int) -> bytes:
    """Agree to the end of a channel: channel.close-ok."""
    return method_frame(channel, b"\0\x14\0\x29")


def method_frame(channel: int, payload: bytes) -> bytes:
    """One method: its class, its number and its arguments are `payload`."""
    return _frame(METHOD, channel, len(payload)) + payload + FRAME_END


class Encoder:
    """Encodes messages one after another; what they have in common is encoded once."""

    def __init__(self, frame_max: int, reserved: frozenset[str] = NOTHING_RESERVED) -> None:
        self._frame_max = frame_max
        self._reserved = reserved
        self._templates = Templates()

    def frames(self, message: Message, channel: int, now: float) -> list[bytes]:
        """Method, header and body frames of one message, in pieces to be joined.

        `now` is on the clock of `message.born`. Raises Unpublishable, saying what is wrong; Denied
        over a header or property that is reserved.
        """
        try:
            route = _route(message.exchange, message.routing_key, message.mandatory, channel)
            properties, size = self._templates.fill(message) or self._the_long_way(message, now)
        except Denied:
            raise
        except Exception as error:  # whatever a row's text provokes is that row's fault, not ours
            raise Unpublishable(str(error) or type(error).__name__) from error
        if size + 20 > self._frame_max:
            raise Unpublishable(
                f"headers and properties take {size} bytes encoded, more than a frame "
                f"of this broker ({self._frame_max} bytes)"
            )
        body = message.body
        header = _header(HEADER, channel, 12 + size, BASIC, len(body))
        parts = [route, header, *properties, FRAME_END]
        room = self._frame_max - 8
        if 0 < len(body) <= room:
            parts += (_frame(BODY, channel, len(body)), body, FRAME_END)
        else:
            for start in range(0, len(body), room):
                piece = body[start : start + room]
                parts += (_frame(BODY, channel, len(piece)), piece, FRAME_END)
        return parts

    def _the_long_way(self, message: Message, now: float) -> tuple[list[bytes], int]:
        properties = encoded(message, now, self._reserved)
        self._templates.learn(message, properties)
        return [properties], len(properties)


@lru_cache(maxsize=1024)
def _route(exchange: str, routing_key: str, mandatory: bool, channel: int) -> bytes:
    """The basic.publish method frame; few routes carry most messages."""
    arguments = short(exchange) + short(routing_key) + (b"\x01" if mandatory else b"\x00")
    return method_frame(channel, BASIC_PUBLISH + arguments)
