"""What a broker says on publishing channels, as events. Bytes in, events out, no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from outbox_relay.broker.amqp.encode import BODY, FRAME_END, HEADER, HEARTBEAT, METHOD

_HEAD: Final = Struct(">BHI")
_METHOD: Final = Struct(">HH")
_CONFIRM: Final = Struct(">QB")
#: basic.ack and basic.nack as they begin a method payload
_ACK: Final = b"\x00\x3c\x00\x50"
_CONFIRMS: Final = frozenset({_ACK, b"\x00\x3c\x00\x78"})


class Confirm(NamedTuple):
    """The broker took (or, `ack` false, could not take) a tag, or all up to it (`multiple`).

    A named tuple, not a dataclass: with several queues, most messages have one of their own.
    """

    tag: int
    multiple: bool
    ack: bool = True


@dataclass(frozen=True, slots=True)
class Returned:
    """A mandatory message that reached no queue. Its confirm follows, and means nothing."""

    code: int
    text: str
    exchange: str
    routing_key: str
    correlation_id: str | None
    message_id: str | None


@dataclass(frozen=True, slots=True)
class Closed:
    """The broker closed the channel, or the whole connection."""

    code: int
    text: str
    connection: bool


@dataclass(frozen=True, slots=True)
class Blocked:
    """The broker has (or has no longer) an alarm: it reads nothing while it lasts."""

    blocked: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What was asked for is declared or bound, or exists."""


Event = Confirm | Returned | Closed | Blocked | Answered


class Inbound:
    """Cuts the byte stream into frames; keeps what is incomplete for the next call."""

    def __init__(self) -> None:
        self.channel = 0  # which the event last told was on
        self._rest = b""
        self._returned: tuple[int, str, str, str] | None = None

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events completed by `data`, in the broker's order."""
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        unpack_head, unpack_confirm = _HEAD.unpack_from, _CONFIRM.unpack_from
        while end - position >= 8:
            kind, self.channel, size = unpack_head(data, position)
            start, stop = position + 7, position + 7 + size
            if stop >= end:
                break
            if data[stop : stop + 1] != FRAME_END:
                yield Closed(501, "the broker sent a frame without an end", connection=True)
                return
            position = stop + 1
            if kind == METHOD:
                method = data[start : start + 4]
                if method in _CONFIRMS:
                    tag, bits = unpack_confirm(data, start + 4)
                    yield Confirm(tag, bool(bits & 1), method == _ACK)
                else:
                    self._rest = data[position:]  # the caller may stop listening here
                    yield from self._method(data[start:stop])
            elif kind == HEADER and self._returned:
                yield self._return_of(data[start:stop])
            elif kind not in (HEADER, BODY, HEARTBEAT):
                yield Closed(501, f"the broker sent a frame of kind {kind}", connection=True)
                return
        self._rest = data[position:]

    def _method(self, payload: bytes) -> Iterator[Event]:
        if len(payload) < 4:
            yield Closed(501, "the broker sent a method without a name", connection=True)
            return
        arguments = _Arguments(payload, 4)
        match _METHOD.unpack_from(payload):
            case (60, 50):
                code = arguments.short()
                self._returned = (code, arguments.text(), arguments.text(), arguments.text())
            case (40 | 50, _):
                yield Answered()
            case (20, 40):
                yield Closed(arguments.short(), arguments.text(), connection=False)
            case (10, 50):
                yield Closed(arguments.short(), arguments.text(), connection=True)
            case (10, 60):
                yield Blocked(True, arguments.text())
            case (10, 61):
                yield Blocked(False)

    def _return_of(self, payload: bytes) -> Returned:
        """Read the two properties that identify a returned message; its body is not needed."""
        assert self._returned is not None
        code, text, exchange, routing_key = self._returned
        self._returned = None
        arguments = _Arguments(payload, 12)
        flags = arguments.short()
        for bit in (15, 14):
            if flags >> bit & 1:
                arguments.text()
        if flags >> 13 & 1:
            arguments.skip_table()
        for bit in (12, 11):
            if flags >> bit & 1:
                arguments.octet()
        texts = {bit: arguments.text() for bit in (10, 9, 8, 7) if flags >> bit & 1}
        return Returned(code, text, exchange, routing_key, texts.get(10), texts.get(7))


class _Arguments:
    """Reads AMQP arguments one after another."""

    def __init__(self, payload: bytes, position: int) -> None:
        self._payload, self._position = payload, position

    def octet(self) -> int:
        self._position += 1
        # Beyond the end of what a broken broker sent, there are zeros.
        return self._payload[self._position - 1] if self._position <= len(self._payload) else 0

    def short(self) -> int:
        return self.octet() << 8 | self.octet()

    def text(self) -> str:
        size = self.octet()
        self._position += size
        return self._payload[self._position - size : self._position].decode("utf-8", "replace")

    def skip_table(self) -> None:
        self._position += 4 + int.from_bytes(
            self._payload[self._position : self._position + 4], "big"
        )
