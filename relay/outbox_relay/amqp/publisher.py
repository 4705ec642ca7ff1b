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
from outbox_relay.amqp.encode import (
    CLOSE,
    CLOSE_OK,
    HEARTBEAT_FRAME,
    publish_frames,
    reopening_frames,
)
from outbox_relay.amqp.flight import Flight
from outbox_relay.amqp.inbound import Blocked, Closed, Confirm, Inbound, Returned
from outbox_relay.amqp.topology import Topology
from outbox_relay.errors import BrokerLost, Denied, Unpublishable
from outbox_relay.link import Link
from outbox_relay.message import Message, Reason, Refusal
from outbox_relay.policy import RESERVED
from outbox_relay.publisher import NOTHING, Outcomes

log = structlog.get_logger()

#: Connection errors by which a broker blames what we sent (AMQP 0-9-1, 1.2); 320 is an operator.
BLAMING: Final = frozenset({501, 502, 503, 505, 540, 541})
DEFAULT_FRAME_MAX: Final = 131_072
#: A channel that said no is replaced so many seconds later. What is sent to a quorum queue for the
#: first time just as its leader dies, RabbitMQ 3.10 refuses for as long as that channel lasts.
REPLACE_AFTER: Final = 5.0


class AmqpPublisher:
    """A confirming channel on a connection of its own. Implements `publisher.Publisher`."""

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
        transport = connection.transport
        self._connection = connection  # keeps the socket's owner alive
        assert channel.channel_id is not None  # it is open
        self._channel = channel.channel_id
        self._frame_max = connection.frame_max or DEFAULT_FRAME_MAX
        heartbeat, leftover = connection.heartbeat or 0, bytes(transport._read_buffer)
        self._link = Link(transport.sock, heartbeat, leftover, HEARTBEAT_FRAME)
        self._inbound = Inbound()
        self._flight = Flight()
        self._topology = topology
        self._confirm_timeout = confirm_timeout
        self._reserved = reserved
        self._batches: deque[tuple[int, int, float]] = deque()  # last tag, messages, when
        self._fate: BrokerLost | None = None
        self._channel_died = False
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
        refused: list[Refusal] = []
        if self._is_stale and not self._flight:
            self._begin_another(CLOSE)
        failed = self._topology.prepare(messages)
        sent: list[Message] = []
        frames: list[bytes] = []
        now = monotonic()
        for message in messages:
            if failed and (why := failed.get((message.declare, message.exchange))):
                refused.append(Refusal(message, why.reason, why.detail))
                continue
            try:
                frames += publish_frames(
                    message, self._channel, self._frame_max, now, self._reserved
                )
            except Unpublishable as error:
                reason = Reason.DENIED if isinstance(error, Denied) else Reason.INVALID
                refused.append(Refusal(message, reason, str(error)))
            else:
                sent.append(message)
        if sent:
            self._flight.take_off(sent)
            self._batches.append((self._flight.last_tag, len(sent), now))
            self._link.send(b"".join(frames))
        return refused

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""
        if self._fate:
            raise self._fate
        confirmed: list[Message] = []
        refused: list[Refusal] = []
        arrived = self._link.pump(timeout)
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
                    self._channel_died = not connection
                    break
        for refusal in refused:
            if refusal.reason is Reason.UNROUTABLE:
                self._topology.forget(refusal.message)
            elif refusal.reason is Reason.NACKED:
                self._replace_at = min(self._replace_at, monotonic() + REPLACE_AFTER)
        return Outcomes(confirmed, refused, self._landed())

    def in_doubt(self) -> list[Message]:
        """Messages the broker may or may not have, once it is lost."""
        return self._flight.in_doubt()

    def reopen(self) -> bool:
        """Where only the channel died, begin another; the broker reads what follows in order."""
        if not self._channel_died:
            return False
        try:
            self._begin_another(CLOSE_OK)
        except BrokerLost:
            return False
        return True

    def close(self) -> None:
        """Drop the connection; a closing handshake could hang on a blocked broker."""
        self._link.close()
        self._connection.collect()
        self._flight = Flight()  # bodies: this object is part of a cycle, and may stay for long

    @property
    def _is_stale(self) -> bool:
        return monotonic() > self._replace_at

    def _begin_another(self, farewell: bytes) -> None:
        """Go on in another channel of the connection, with tags of its own."""
        old, self._channel = self._channel, self._channel % 2 + 1
        self._link.send(reopening_frames(old, self._channel, farewell))
        self._flight = Flight()
        self._batches.clear()
        self._fate, self._channel_died, self._replace_at = None, False, inf

    def _alarm(self, event: Blocked) -> None:
        self._blocked = event.blocked
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
