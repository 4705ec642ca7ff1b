"""Publishes each poison suspect on a channel of its own, so that it can harm no other.

A broker that closes a channel does not say over which of its messages. On a channel that carries
one message, it need not. Many suspects are tried at a time, and none is published twice for it.
"""

from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final

from outbox_relay.broker.amqp.channel import Channel
from outbox_relay.broker.amqp.connect import open_connection
from outbox_relay.broker.amqp.connection import POISON_CODES, AmqpConnection
from outbox_relay.broker.amqp.encode import channel_closed_frame, channel_opening_frames
from outbox_relay.broker.amqp.inbound import Blocked, Closed, Confirm, Event, Inbound, Returned
from outbox_relay.broker.amqp.outbound import Outbound
from outbox_relay.broker.amqp.settings import RESERVED
from outbox_relay.broker.amqp.size import limit_in
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.broker.publisher import MAX_SUSPECTS
from outbox_relay.core.message import Message, Outcomes, Reason, Refusal
from outbox_relay.core.size import too_large
from outbox_relay.errors import BrokerLost

#: The code with which a broker says that our user lacks a right, not that a message is bad.
ACCESS_REFUSED: Final = 403


class SuspectPublisher:
    """As many channels as there are messages in flight. Implements `publisher.Publisher`."""

    spotless = False  # it is opened for some suspects, and closed after them

    def __init__(
        self,
        url: str,
        topology: Topology,
        confirm_timeout: float,
        reserved: frozenset[str] = RESERVED,
    ) -> None:
        self._connection = AmqpConnection(open_connection(url))
        self._inbound = Inbound()
        self._topology = topology
        self._outbound = Outbound(topology, reserved)
        self._outbound.fit(self._connection.frame_max)
        self._confirm_timeout = confirm_timeout
        self.max_suspects = min(MAX_SUSPECTS, self._connection.channel_max)
        # The number of a closed channel is used again last, after we have acknowledged the closing.
        self._unopened = deque(range(1, min(2 * MAX_SUSPECTS, self._connection.channel_max) + 1))
        self._dead: set[int] = set()
        self._free: list[Channel] = []
        self._busy: dict[int, Channel] = {}  # oldest first
        self._fate: BrokerLost | None = None
        self._blocked = False

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed, and those whose queue is being declared."""
        return len(self._busy) + self._topology.waiting

    @property
    def stuck(self) -> int:
        """Each message has a channel of its own."""
        return 0

    @property
    def hangs(self) -> bool:
        """Nobody asks: a suspect is waited for closely."""
        return False

    @property
    def in_flight_bytes(self) -> int:
        """Their size."""
        on_the_wire = sum(channel.flight.bytes for channel in self._busy.values())
        return on_the_wire + self._topology.waiting_bytes

    @property
    def blocked(self) -> bool:
        """Whether the broker has an alarm."""
        return self._blocked

    @property
    def max_body(self) -> int | None:
        """The largest body that the broker takes, in bytes, once it has said so."""
        return self._outbound.max_body

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, at most `max_suspects` with those in flight."""
        if self._fate:
            raise self._fate
        ready, refused = self._topology.prepare(messages, now := monotonic())
        return refused + self._send(ready, now)

    def _send(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Put messages on the wire whose queues exist."""
        refused: list[Refusal] = []
        wire: list[bytes] = []
        for message in messages:
            channel = self._channel(wire)
            sent, frames, denied = self._outbound.frames([message], channel.number, now)
            refused += denied
            if not sent:
                self._free.append(channel)
                continue
            wire += frames
            channel.take_off(sent, now)
            self._busy[channel.number] = channel
        if wire:
            self._connection.link.send(b"".join(wire))
        return refused

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""
        if self._fate:
            raise self._fate
        confirmed: list[Message] = []
        refused: list[Refusal] = []
        for event in self._inbound.feed(self._connection.link.pump(timeout)):
            self._handle(event, self._inbound.channel, confirmed, refused)
            if self._fate:
                break
        self._outbound.came_back(refused)
        if not self._fate:
            ready, undeclared = self._topology.step(now := monotonic())
            refused += undeclared + self._send(ready, now)
        self._check_time(monotonic())
        return Outcomes(confirmed, refused, [])

    def unconfirmed(self) -> list[Message]:
        """What was in flight when the connection was lost."""
        return [
            message for channel in self._busy.values() for message in channel.flight.unconfirmed()
        ]

    def unpublished(self) -> list[Message]:
        """What waits for a declaration."""
        return self._topology.waiting_messages()

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()
        self._topology.close()
        self._busy.clear()

    def _channel(self, wire: list[bytes]) -> Channel:
        """A channel with nothing in flight; a new one is opened by what is added to `wire`."""
        if self._free:
            return self._free.pop()
        channel = Channel(self._unopened.popleft())
        if channel.number in self._dead:
            self._dead.remove(channel.number)
            wire.append(channel_closed_frame(channel.number))
        wire.append(channel_opening_frames(channel.number))
        return channel

    def _handle(
        self, event: Event, number: int, confirmed: list[Message], refused: list[Refusal]
    ) -> None:
        channel = self._busy.get(number)
        match event:
            case Closed(code, text, connection=True):
                # Raised by the next call: this one returns what was confirmed before.
                poison = code in POISON_CODES
                self._fate = BrokerLost(f"the broker closed on us: {code} {text}", poison=poison)
            case Closed(code, text):
                reason = Reason.FORBIDDEN if code == ACCESS_REFUSED else Reason.REJECTED
                words = f"the broker closed on us: {code} {text}"
                carried = channel.flight.unconfirmed() if channel is not None else ()
                if (limit := limit_in(code, text)) is not None:
                    refused += [too_large(message, len(message.body), limit) for message in carried]
                    self._outbound.max_body = limit
                else:
                    refused += [Refusal(message, reason, words) for message in carried]
                self._retire(number)
            case Confirm() if channel is not None:
                channel.flight.confirmed(event, confirmed, refused)
                if channel.landed(monotonic()):
                    self._free.append(self._busy.pop(number))
            case Returned() if channel is not None:
                channel.flight.returned(event)
            case Blocked(blocked):
                self._blocked = blocked
                self._connection.link.patient(blocked)
                for each in self._busy.values():
                    each.wait_anew(monotonic())

    def _retire(self, number: int) -> None:
        self._busy.pop(number, None)
        self._free = [channel for channel in self._free if channel.number != number]
        self._dead.add(number)
        self._unopened.append(number)

    def _check_time(self, now: float) -> None:
        overdue = max((channel.waiting(now) for channel in self._busy.values()), default=0.0)
        if overdue > self._confirm_timeout and not self._blocked:
            self._fate = self._fate or BrokerLost(f"no confirm for {overdue:.0f} s")
