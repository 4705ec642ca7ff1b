"""Pipelined publishing to an AMQP broker: a window in flight, each message settled by its own tag.

Every message is mandatory unless it may reach no queue by design, so that an acknowledgement means
stored, not merely read.
"""

from collections.abc import Iterable, Sequence
from math import inf
from time import monotonic
from typing import Final

import structlog
from amqp.exceptions import AMQPError

from outbox_relay.broker.amqp.channel import Channel
from outbox_relay.broker.amqp.connect import open_connection
from outbox_relay.broker.amqp.connection import POISON_CODES, AmqpConnection
from outbox_relay.broker.amqp.encode import (
    channel_closed_frame,
    channel_closing_frame,
    channel_opening_frames,
)
from outbox_relay.broker.amqp.inbound import Blocked, Closed, Confirm, Inbound, Returned
from outbox_relay.broker.amqp.outbound import Outbound
from outbox_relay.broker.amqp.settings import RESERVED
from outbox_relay.broker.amqp.size import limit_in
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import NOTHING, Message, Outcomes, Reason, Refusal
from outbox_relay.errors import BrokerLost

log = structlog.get_logger()

#: RabbitMQ has one process for a channel, which waits for queues now and then. Meanwhile another
#: channel's process works. Batches in different channels may overtake one another.
CHANNELS: Final = 2
#: A channel with a nack is replaced so many seconds later. RabbitMQ 3.10 goes on refusing on a
#: channel that first published to a quorum queue just as the queue's leader died.
REPLACE_AFTER: Final = 5.0
#: How often the answers to declarations are looked for, in seconds.
DECLARING_POLL: Final = 0.002
#: How long claiming may pause until nothing is in flight and channels can be replaced, in seconds.
MAX_DRAINING: Final = 0.25


class AmqpPublisher:
    """Confirming channels on a connection of their own. Implements `publisher.Publisher`."""

    max_suspects = (
        1  # messages share a channel: when one of them closes it, the others are suspects
    )

    def __init__(
        self,
        url: str,
        topology: Topology,
        confirm_timeout: float,
        reserved: frozenset[str] = RESERVED,
    ) -> None:
        connection = open_connection(url)
        try:
            channel = connection.channel()
            channel.confirm_select()
        except (OSError, AMQPError) as error:
            connection.collect()
            raise BrokerLost(f"the broker gave no confirming channel: {error}") from error
        assert channel.channel_id is not None  # it is open
        self._connection = AmqpConnection(connection)
        self._inbound = Inbound()
        self._topology = topology
        self._outbound = Outbound(topology, self._connection.frame_max, reserved)
        self._confirm_timeout = confirm_timeout
        self._channels: dict[int, Channel] = {}
        self._begin(range(1, self._count + 1), begun=channel.channel_id)
        self._fate: BrokerLost | None = None
        self._dead: Channel | None = None
        self._blocked = False
        self._replace_at = inf

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed, and those whose queue is being declared."""
        return self._on_the_wire + self._topology.waiting

    @property
    def in_flight_bytes(self) -> int:
        """Their size."""
        on_the_wire = sum(channel.flight.bytes for channel in self._channels.values())
        return on_the_wire + self._topology.waiting_bytes

    @property
    def blocked(self) -> bool:
        """Whether the broker has an alarm, or channels are replaced once nothing is in flight."""
        waits = self._is_stale and monotonic() < self._replace_at + MAX_DRAINING
        return self._blocked or (waits and self._on_the_wire > 0)

    @property
    def max_body(self) -> int | None:
        """The largest body that the broker takes, in bytes, once it has said so."""
        return self._outbound.max_body

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, in order; those no broker could take come straight back."""
        if self._fate:
            raise self._fate  # these messages were not in flight: they are no suspects
        if self._is_stale and not self._on_the_wire:
            self._begin_others()
        elif self._is_stale:  # something stays in flight, in a queue that hangs, say
            self._replace_at = monotonic() + REPLACE_AFTER
        now = monotonic()
        ready, refused = self._topology.prepare(messages, now)
        return refused + self._send(ready, now)

    def _send(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Put messages on the wire whose queues exist."""
        channel = min(self._channels.values(), key=lambda channel: len(channel.flight))
        sent, frames, refused = self._outbound.frames(messages, channel.number, now)
        if sent:
            channel.take_off(sent, now)
            self._connection.link.send(b"".join(frames))
        return refused

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""
        if self._fate:
            raise self._fate
        confirmed: list[Message] = []
        refused: list[Refusal] = []
        if declaring := self._topology.busy:
            timeout = min(timeout, DECLARING_POLL)
        arrived = self._connection.link.pump(timeout)
        if not (arrived or declaring or self.in_flight):
            return NOTHING
        for event in self._inbound.feed(arrived):
            channel = self._channels.get(self._inbound.channel)
            match event:
                case Confirm() if channel is not None:
                    channel.flight.confirmed(event, confirmed, refused)
                case Returned() if channel is not None:
                    channel.flight.returned(event)
                case Blocked():
                    self._alarm(event)
                case Closed(code, text, False) if (
                    channel is not None
                    and (limit := limit_in(code, text)) is not None
                    and any(len(m.body) > limit for m in channel.flight.unconfirmed())
                ):
                    refused += self._replace(channel, limit)
                case Closed(code, text, connection):
                    # Raised by the next call: this one returns what was confirmed before.
                    poison = code in POISON_CODES if connection else True
                    self._fate = BrokerLost(
                        f"the broker closed on us: {code} {text}", poison=poison
                    )
                    self._dead = channel
                    break
        self._outbound.came_back(refused)
        if not self._fate:
            refused += self._declared(monotonic())
        if any(refusal.reason is Reason.NACKED for refusal in refused):
            self._replace_at = min(self._replace_at, monotonic() + REPLACE_AFTER)
        now = monotonic()
        if not self._blocked:
            refused += self._overdue(now)
        return Outcomes(confirmed, refused, self._landed(now))

    def _declared(self, now: float) -> list[Refusal]:
        """Send what has waited for a declaration, as far as that has come."""
        ready, refused = self._topology.step(now)
        return refused + self._send(ready, now) if ready else refused

    def unconfirmed(self) -> list[Message]:
        """What was in flight on the channel that was closed, or on all of a lost connection."""
        channels = [self._dead] if self._dead is not None else self._channels.values()
        return [message for channel in channels for message in channel.flight.unconfirmed()]

    def unpublished(self) -> list[Message]:
        """What waits for a declaration."""
        return self._topology.waiting_messages()

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()
        self._topology.close()
        # Let go of the bodies: this object may be garbage for long before it is collected.
        self._channels, self._dead = {}, None

    @property
    def _on_the_wire(self) -> int:
        return sum(len(channel.flight) for channel in self._channels.values())

    @property
    def _count(self) -> int:
        """At most half as many as the broker allows: the other half may replace them."""
        return min(CHANNELS, max(1, self._connection.channel_max // 2))

    @property
    def _is_stale(self) -> bool:
        return monotonic() > self._replace_at

    def _begin(self, numbers: Iterable[int], begun: int = 0) -> None:
        """Open channels, except for one that is open."""
        self._channels = {number: Channel(number) for number in numbers}
        opening = map(channel_opening_frames, self._channels.keys() - {begun})
        self._connection.link.send(b"".join(opening))

    def _begin_others(self) -> None:
        """Close these channels, and go on in others of the connection."""
        old = [*self._channels]
        self._connection.link.send(b"".join(map(channel_closing_frame, old)))
        shift = self._count if old[0] == 1 else -self._count
        self._begin(number + shift for number in old)
        self._replace_at = inf

    def _replace(self, channel: Channel, limit: int) -> list[Refusal]:
        """Go on in a channel that the broker closed over a message's size, but for what is larger.

        What it had not confirmed is published again: it may have come before that message or after.
        """
        survivors = channel.flight.unconfirmed()
        self._outbound.max_body = limit
        number, now = channel.number, monotonic()
        fresh = self._channels[number] = Channel(number)
        sent, frames, refused = self._outbound.frames(survivors, number, now)
        opening = channel_closed_frame(number) + channel_opening_frames(number)
        self._connection.link.send(b"".join((opening, *frames)))
        if sent:
            fresh.take_off(sent, now)
        return refused

    def _alarm(self, event: Blocked) -> None:
        self._blocked = event.blocked
        self._connection.link.patient(event.blocked)
        if event.blocked:
            log.warning("broker_blocked", reason=event.reason)
        else:
            log.info("broker_unblocked")
            for channel in self._channels.values():
                channel.wait_anew(monotonic())

    def _overdue(self, now: float) -> list[Refusal]:
        """Messages whose queues do not answer. Others go on, unless they are stuck behind them."""
        return [
            Refusal(message, Reason.UNANSWERED, f"no confirm for {self._confirm_timeout:.0f} s")
            for channel in self._channels.values()
            for message in channel.give_up(now, self._confirm_timeout, self._connection.link.heard)
        ]

    def _landed(self, now: float) -> list[tuple[float, int]]:
        """Batches confirmed to the last message. The broker is lost if a confirm is overdue."""
        channels = self._channels.values()
        landed = [batch for channel in channels for batch in channel.landed(now)]
        overdue = max(channel.waiting(now) for channel in channels)
        if overdue > self._confirm_timeout and not self._blocked:
            self._fate = self._fate or BrokerLost(f"no confirm for {overdue:.0f} s")
        return landed
