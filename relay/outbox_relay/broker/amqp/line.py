"""A connection that carries messages, on confirming channels in turn; each settled by its own tag.

It does what it is told, and knows how long it has waited for the broker; what that means for others
than its own messages is decided by the publisher.
"""

from collections.abc import Iterable, Sequence
from math import inf
from time import monotonic
from typing import Final

import amqp
import structlog

from outbox_relay.broker.amqp.apart import Apart
from outbox_relay.broker.amqp.channel import Channel, unanswered
from outbox_relay.broker.amqp.connection import POISON_CODES, AmqpConnection
from outbox_relay.broker.amqp.encode import (
    channel_closed_frame,
    channel_closing_frame,
    channel_opening_frames,
)
from outbox_relay.broker.amqp.inbound import Blocked, Closed, Confirm, Event, Inbound, Returned
from outbox_relay.broker.amqp.outbound import Outbound
from outbox_relay.broker.amqp.size import limit_in
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.core.pauses import Route, route_of
from outbox_relay.errors import BrokerLost

log = structlog.get_logger()

#: RabbitMQ has one process for a channel, which waits for queues now and then. Meanwhile another
#: channel's process works. Batches in different channels may overtake one another.
CHANNELS: Final = 2
#: A channel with a nack is replaced so many seconds later. RabbitMQ 3.10 goes on refusing on a
#: channel that first published to a quorum queue just as the queue's leader died.
REPLACE_AFTER: Final = 5.0
#: How long claiming may pause until nothing is in flight and channels can be replaced, in seconds.
MAX_DRAINING: Final = 0.25
#: What has been in flight for so long, in seconds, hangs: it is not waited for.
HANGS: Final = 1.0
#: RabbitMQ reads at least so many messages for a quorum queue that does not answer, and more for a
#: classic one, before it reads nothing more from their connection.
MIN_STALLED: Final = 32


class Line:
    """What is in flight on one connection; one of its channels may have been `begun` already."""

    def __init__(self, connection: amqp.Connection, outbound: Outbound, begun: int = 0) -> None:
        self._connection = AmqpConnection(connection)
        outbound.fit(self._connection.frame_max)
        self._outbound = outbound
        self._inbound = Inbound()
        self._shared: dict[int, Channel] = {}
        self._apart = Apart(self._connection, outbound, first=2 * self._count + 1)
        self._begin(range(1, self._count + 1), begun)
        self._dead: Channel | None = None
        self._replace_at = inf
        self.alarm = False
        #: How the broker ended it; what was confirmed before has been told.
        self.fate: BrokerLost | None = None

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed."""
        return sum(len(channel.flight) for channel in self._channels)

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(channel.flight.bytes for channel in self._channels)

    @property
    def draining(self) -> bool:
        """Whether nothing more should be published for a moment, so that channels are replaced.

        Only the shared ones are; and where something hangs in one, the moment would be lost.
        """
        now = monotonic()
        if not (self._replace_at < now < self._replace_at + MAX_DRAINING and self._is_shared):
            return False
        return max(channel.waiting(now) for channel in self._shared.values()) < HANGS

    @property
    def spotless(self) -> bool:
        """Whether its channels take everything: none hangs, or is to be replaced."""
        return self._replace_at == inf and not (self.fate or self.alarm or self._apart.used)

    def send(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Put messages on the wire; returns those no broker could take."""
        if now > self._replace_at:
            if self._is_shared:  # something is in flight all the time, say for a stuck queue
                self._replace_at = now + REPLACE_AFTER
            else:
                self._begin_others()
        channel = min(self._shared.values(), key=lambda channel: len(channel.flight))
        sent, frames, refused = self._outbound.frames(messages, channel.number, now)
        if sent:
            channel.take_off(sent, now)
            self._connection.link.send(b"".join(frames))
        return refused

    def send_apart(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Put each on a channel of its own, which may get stuck; returns what is not sent."""
        return self._apart.send(messages, now)

    def listen(self, timeout: float, confirmed: list[Message], refused: list[Refusal]) -> bool:
        """Add what the broker says within `timeout` seconds; whether it said anything."""
        arrived, now = self._connection.link.pump(timeout), monotonic()
        for event in self._inbound.feed(arrived):
            if isinstance(event, Confirm):
                if channel := self._channel(self._inbound.channel):
                    channel.flight.confirmed(event, confirmed, refused)
                    channel.heard = now
            else:
                refused += self._handle(event)
                if self.fate:
                    break
        if any(refusal.reason is Reason.NACKED for refusal in refused):
            self._replace_at = min(self._replace_at, now + REPLACE_AFTER)
        self._apart.end()
        return bool(arrived)

    def landed(self, now: float) -> list[tuple[float, int]]:
        """Batches that are confirmed to the last message: seconds, and how many messages."""
        return [batch for channel in self._channels for batch in channel.landed(now)]

    def waiting(self, now: float) -> float:
        """For how long the oldest batch in flight has waited for its confirms."""
        return max(channel.waiting(now) for channel in self._channels)

    def hangs(self, now: float) -> bool:
        """Whether all that is in flight hangs."""
        return all(channel.hangs(now, HANGS) for channel in self._channels)

    def stalled(self, now: float, after: float) -> bool:
        """Whether messages have waited for so long on a channel on which nothing is confirmed."""
        link = self._connection.link
        if link.backlog and now - link.spoke < after:
            return False  # they are still being written
        late = [
            message
            for channel in self._shared.values()
            if min(channel.waiting(now), now - channel.heard) > after
            for message in channel.flight.unconfirmed()
        ]
        # Few of one route stop nothing, and nothing stands behind them.
        return len(late) >= MIN_STALLED or len(set(map(route_of, late))) > 1

    def quiet(self, now: float) -> float:
        """For how long nothing was confirmed or refused."""
        return now - max(channel.heard for channel in self._channels)

    def silent_routes(self, now: float, after: float) -> set[Route]:
        """Routes without a confirm for so long, while later messages for others were confirmed."""
        return {
            route_of(message)
            for channel in self._channels
            for message in channel.silent(now, after)
        }

    def overdue(self, now: float, timeout: float) -> list[Refusal]:
        """Messages whose queues do not answer. Others go on, unless they are stuck behind them."""
        heard = self._connection.link.heard
        return [
            unanswered(message, timeout)
            for channel in self._channels
            for message in channel.give_up(now, timeout, heard)
        ]

    def take_back(self, route: Route | None = None) -> list[Message]:
        """Wait no longer for any message in flight, or those of a route."""
        return [
            message
            for channel in self._channels
            for message in channel.flight.give_up(channel.flight.last_tag, route)
        ]

    def take_back_each(self, messages: Iterable[Message]) -> None:
        """Wait no longer for these."""
        ids = {message.id for message in messages}
        for channel in self._channels:
            channel.flight.forget(ids)

    def newest(self) -> dict[Route, Message]:
        """The last message in flight of each route."""
        return {route_of(message): message for message in self.unconfirmed()}

    def unconfirmed(self) -> list[Message]:
        """What was in flight on the channel that was closed, or on all of them."""
        channels = [self._dead] if self._dead is not None else self._channels
        return [message for channel in channels for message in channel.flight.unconfirmed()]

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()
        # Let go of the bodies: this object may be garbage for long before it is collected.
        self._shared, self._dead = {}, None
        self._apart.channels.clear()

    @property
    def _channels(self) -> list[Channel]:
        return [*self._shared.values(), *self._apart.channels.values()]

    def _channel(self, number: int) -> Channel | None:
        return self._shared.get(number) or self._apart.channels.get(number)

    @property
    def _count(self) -> int:
        """At most half as many as the broker allows: the other half may replace them."""
        return min(CHANNELS, max(1, self._connection.channel_max // 2))

    @property
    def _is_shared(self) -> bool:
        """Whether anything is in flight but on a channel of its own."""
        return any(channel.flight for channel in self._shared.values())

    def _handle(self, event: Event) -> list[Refusal]:
        """Handle what is no confirm; returns what the broker will never take."""
        channel = self._channel(self._inbound.channel)
        match event:
            case Returned() if channel is not None:
                channel.flight.returned(event)
            case Blocked():
                self._alarm(event)
            case Closed(code, text, False) if (
                channel is not None
                and (limit := limit_in(code, text)) is not None
                and any(len(m.body) > limit for m in channel.flight.unconfirmed())
            ):
                return self._replace(channel, limit)
            case Closed(code, text, connection):
                poison = code in POISON_CODES if connection else True
                self.fate = BrokerLost(f"the broker closed on us: {code} {text}", poison=poison)
                self._dead = channel
        return []

    def _begin(self, numbers: Iterable[int], begun: int = 0) -> None:
        """Open channels, except for one that is open."""
        self._shared = {number: Channel(number) for number in numbers}
        opening = map(channel_opening_frames, self._shared.keys() - {begun})
        self._connection.link.send(b"".join(opening))

    def _begin_others(self) -> None:
        """Close these channels, and go on in others of the connection."""
        old = [*self._shared]
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
        fresh = Channel(number)
        fresh.heard = now
        (self._shared if number in self._shared else self._apart.channels)[number] = fresh
        sent, frames, refused = self._outbound.frames(survivors, number, now)
        opening = channel_closed_frame(number) + channel_opening_frames(number)
        self._connection.link.send(b"".join((opening, *frames)))
        if sent:
            fresh.take_off(sent, now)
        return refused

    def _alarm(self, event: Blocked) -> None:
        self.alarm = event.blocked
        self._connection.link.patient(event.blocked)
        if event.blocked:
            log.warning("broker_blocked", reason=event.reason)
        else:
            log.info("broker_unblocked")
            now = monotonic()
            for channel in self._channels:
                channel.wait_anew(now)
