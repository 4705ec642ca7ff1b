"""Pipelined publishing to an AMQP broker: a window in flight, each message settled by its own tag.

Every message is mandatory unless it may reach no queue by design, so that an acknowledgement means
stored, not merely read.
"""

from collections import deque
from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Final

import structlog
from amqp.exceptions import AMQPError

from outbox_relay.amqp.connect import open_connection
from outbox_relay.amqp.encode import channel_closing_frame, channel_opening_frames
from outbox_relay.amqp.flight import Flight
from outbox_relay.amqp.inbound import Blocked, Closed, Confirm, Inbound, Returned
from outbox_relay.amqp.line import BLAMING, Line
from outbox_relay.amqp.outbound import Outbound
from outbox_relay.amqp.topology import Topology
from outbox_relay.errors import BrokerLost
from outbox_relay.message import Message, Reason, Refusal
from outbox_relay.policy import RESERVED
from outbox_relay.publisher import NOTHING, Outcomes

log = structlog.get_logger()

#: A channel that said no is replaced so many seconds later. What is sent to a quorum queue for the
#: first time just as its leader dies, RabbitMQ 3.10 refuses for as long as that channel lasts.
REPLACE_AFTER: Final = 5.0


class AmqpPublisher:
    """A confirming channel on a connection of its own. Implements `publisher.Publisher`."""

    apart = 1  # when one of its messages kills the channel, all others die with it

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
        self._channel = channel.channel_id
        self._line = Line(connection)
        self._inbound = Inbound()
        self._outbound = Outbound(topology, self._line.frame_max, reserved)
        self._flight = Flight()
        self._confirm_timeout = confirm_timeout
        self._batches: deque[tuple[int, int, float]] = deque()  # last tag, messages, when
        self._fate: BrokerLost | None = None
        self._blocked = False
        self._replace_at = inf

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed."""
        return len(self._flight)

    @property
    def in_flight_bytes(self) -> int:
        """The size of their bodies."""
        return self._flight.bytes

    @property
    def blocked(self) -> bool:
        """Whether the broker has an alarm, or its channel is replaced once nothing is in flight."""
        return self._blocked or (self._is_stale and bool(self._flight))

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, in order; those no broker could take come straight back."""
        if self._fate:
            raise self._fate  # these messages never were in flight: no suspicion falls on them
        if self._is_stale and not self._flight:
            self._begin_another_channel()
        now = monotonic()
        failed = self._outbound.provide(messages)
        sent, frames, refused = self._outbound.frames(messages, self._channel, now, failed)
        if sent:
            self._flight.take_off(sent)
            self._batches.append((self._flight.last_tag, len(sent), now))
            self._line.link.send(b"".join(frames))
        return refused

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""
        if self._fate:
            raise self._fate
        confirmed: list[Message] = []
        refused: list[Refusal] = []
        arrived = self._line.link.pump(timeout)
        if not arrived and not self._batches:
            return NOTHING
        for event in self._inbound.feed(arrived):
            match event:
                case Confirm():
                    self._flight.confirmed(event, confirmed, refused)
                case Returned():
                    self._flight.returned(event)
                case Blocked():
                    self._alarm(event)
                case Closed(code, text, connection):
                    # Told at the next call, so that what was confirmed before it is not forgotten.
                    blame = code in BLAMING if connection else True
                    self._fate = BrokerLost(f"the broker closed on us: {code} {text}", blame=blame)
                    break
        self._outbound.landed(refused)
        if any(refusal.reason is Reason.NACKED for refusal in refused):
            self._replace_at = min(self._replace_at, monotonic() + REPLACE_AFTER)
        return Outcomes(confirmed, refused, self._landed())

    def in_doubt(self) -> list[Message]:
        """Messages the broker may or may not have, once it is lost."""
        return self._flight.in_doubt()

    def close(self) -> None:
        """Drop the connection."""
        self._line.close()
        self._flight = Flight()  # bodies: this object is part of a cycle, and may stay for long

    @property
    def _is_stale(self) -> bool:
        return monotonic() > self._replace_at

    def _begin_another_channel(self) -> None:
        """Go on in another channel of the connection, with tags of its own."""
        old, self._channel = self._channel, self._channel % 2 + 1
        self._line.link.send(channel_closing_frame(old) + channel_opening_frames(self._channel))
        self._flight = Flight()
        self._batches.clear()
        self._replace_at = inf

    def _alarm(self, event: Blocked) -> None:
        self._blocked = event.blocked
        self._line.link.patient(event.blocked)
        if event.blocked:
            log.warning("broker_blocked", reason=event.reason)
        else:
            log.info("broker_unblocked")
            # The wait was announced: the clock of every confirm owed starts again.
            now = monotonic()
            self._batches = deque((last, count, now) for last, count, _ in self._batches)

    def _landed(self) -> list[tuple[float, int]]:
        """Batches confirmed to the last message; raises BrokerLost where one is overdue."""
        now, lowest = monotonic(), self._flight.lowest_tag
        landed = []
        while self._batches and self._batches[0][0] < lowest:
            _, count, when = self._batches.popleft()
            landed.append((now - when, count))
        if self._batches and not self._blocked:
            overdue = now - self._batches[0][2]
            if overdue > self._confirm_timeout:
                self._fate = BrokerLost(f"no confirm for {overdue:.0f} s")
        return landed
