"""Channels with a single message each: a queue that does not answer holds up no other message.

A channel on which nothing was heard may be stuck with its queue: it is neither used again nor
closed.
"""

from collections.abc import Sequence
from math import inf
from typing import Final

from outbox_relay.broker.amqp.channel import Channel, unanswered
from outbox_relay.broker.amqp.connection import AmqpConnection
from outbox_relay.broker.amqp.encode import channel_closing_frame, channel_opening_frames
from outbox_relay.broker.amqp.outbound import Outbound
from outbox_relay.core.message import Message, Refusal

#: The highest number of such a channel.
MAX_APART: Final = 2047


class Apart:
    """Those of one connection that are open, by their numbers, from `first` on."""

    def __init__(self, connection: AmqpConnection, outbound: Outbound, first: int) -> None:
        self._connection, self._outbound = connection, outbound
        self._first = self._next = first
        self._hung: set[int] = set()
        self.channels: dict[int, Channel] = {}

    @property
    def used(self) -> bool:
        """Whether any is open, or hangs."""
        return bool(self.channels or self._hung)

    def send(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Put each on a channel of its own; returns what is not sent."""
        refused: list[Refusal] = []
        for message in messages:
            if (number := self._number()) is None:
                refused.append(unanswered(message, 0))
                continue
            sent, frames, failed = self._outbound.frames([message], number, now)
            refused += failed
            if sent:
                channel = self.channels[number] = Channel(number)
                channel.take_off(sent, now)
                self._connection.link.send(b"".join((channel_opening_frames(number), *frames)))
        return refused

    def end(self) -> None:
        """Close channels that have done what they were opened for; those that are stuck stay."""
        for number in [number for number, channel in self.channels.items() if not channel.flight]:
            if self.channels.pop(number).heard == -inf:
                self._hung.add(number)
            else:
                self._connection.link.send(channel_closing_frame(number))

    def _number(self) -> int | None:
        """One that is not open, unless half of them are open or stuck."""
        last = min(MAX_APART, self._connection.channel_max)
        if len(self.channels) + len(self._hung) > (last - self._first) // 2:
            return None
        while True:
            number = self._next
            self._next = number + 1 if number < last else self._first
            if number not in self.channels and number not in self._hung:
                return number
