"""Pipelined publishing to an AMQP broker: a window in flight, each message settled by its own tag.

Every message is mandatory unless it may reach no queue by design, so that an acknowledgement means
stored, not merely read. A queue that does not answer holds up its own messages and no others, even
where it has brought a whole connection to a stop.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final

from amqp.exceptions import AMQPError

from outbox_relay.broker.amqp.bypass import Bypass
from outbox_relay.broker.amqp.channel import unanswered
from outbox_relay.broker.amqp.connect import BackgroundOpening, open_connection
from outbox_relay.broker.amqp.line import Line
from outbox_relay.broker.amqp.outbound import Outbound
from outbox_relay.broker.amqp.settings import RESERVED
from outbox_relay.broker.amqp.topology import Topology
from outbox_relay.core.message import NOTHING, Message, Outcomes, Reason, Refusal
from outbox_relay.core.pauses import Route, route_of
from outbox_relay.errors import BrokerLost

#: How often the answers to declarations are looked for, in seconds.
DECLARING_POLL: Final = 0.002
#: A route without a confirm for so many seconds gets no more messages while others are confirmed,
#: and a connection on which nothing was confirmed is gone around. Less, where confirms are overdue
#: early.
SILENT_AFTER: Final = 2.0
#: Of so many routes it is remembered that they did not answer.
MAX_DOUBTED: Final = 10_000
#: How often it is looked which routes are silent, in seconds.
LOOK_EVERY: Final = 0.25


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
        self._topology = topology
        self._outbound = Outbound(topology, reserved)
        self._confirm_timeout = confirm_timeout
        self._silent_after = min(SILENT_AFTER, confirm_timeout / 2)
        self._line = Line(connection, self._outbound, begun=channel.channel_id)
        self._bypass = Bypass(
            lambda: BackgroundOpening(url),
            lambda connection: Line(connection, self._outbound),
            confirm_timeout,
        )
        self._silent: set[Route] = set()
        self._doubted: set[Route] = set()
        self._again: set[int] = set()  # what came back, and is published once more
        self._looked = 0.0
        self._fate: BrokerLost | None = None

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed, and those whose queue is being declared."""
        return self._line.in_flight + self._bypass.stuck + self._topology.waiting

    @property
    def stuck(self) -> int:
        """Of these, how many are on a connection that was brought to a stop."""
        return self._bypass.stuck

    @property
    def hangs(self) -> bool:
        """Whether none of it, nor of what is declared, has a quick answer to come."""
        now = monotonic()
        late = self._line.hangs(now) and self._topology.hangs(now)
        return late and not self._bypass.moving

    @property
    def in_flight_bytes(self) -> int:
        """The size of all but what is stuck."""
        return self._line.bytes + self._topology.waiting_bytes

    @property
    def blocked(self) -> bool:
        """Whether the broker has an alarm, or channels are about to be replaced."""
        return self._line.alarm or self._line.draining

    @property
    def spotless(self) -> bool:
        """Whether nothing is in flight, and nothing is held against a route or a channel."""
        held = self._fate or self._silent or self._doubted or self._again
        busy = self.in_flight or self._topology.busy or self._bypass.stalled or self._bypass.moving
        return not (held or busy) and self._line.spotless

    @property
    def max_body(self) -> int | None:
        """The largest body that the broker takes, in bytes, once it has said so."""
        return self._outbound.max_body

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, in order; those no broker could take come straight back."""
        if self._fate:
            raise self._fate  # these messages were not in flight: they are no suspects
        now = monotonic()
        ready, refused = self._topology.prepare(messages, now)
        return refused + self._send(ready, now)

    def _send(self, messages: Sequence[Message], now: float) -> list[Refusal]:
        """Put messages on the wire whose queues exist, unless these do not answer."""
        refused: list[Refusal] = []
        if self._silent or self._bypass.on_trial or self._doubted:
            others: list[Message] = []
            for message in messages:
                route = route_of(message)
                if route in self._silent or route in self._bypass.on_trial:
                    refused.append(unanswered(message, self._silent_after))
                elif route in self._doubted:  # a channel may get stuck over it
                    refused += self._line.send_apart([message], now)
                else:
                    others.append(message)
            messages = others
        return refused + self._line.send(messages, now) if messages else refused

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""
        if self._fate:
            raise self._fate
        confirmed: list[Message] = []
        refused: list[Refusal] = []
        if declaring := self._topology.busy:
            timeout = min(timeout, DECLARING_POLL)
        arrived = self._line.listen(timeout, confirmed, refused)
        if not (arrived or declaring or self.in_flight):
            return NOTHING
        now = monotonic()
        # Raised by the next call: this one returns what was confirmed before.
        self._fate = self._line.fate
        refused = self._returned(refused, now)
        landed = self._line.landed(now)
        if not self._fate:
            ready, undeclared = self._topology.step(now)
            refused += undeclared + self._send(ready, now)
            if not self._line.alarm:
                self._look_out(now, confirmed, refused)
        self._outbound.came_back(refused)
        if self._again:
            self._again.difference_update(message.id for message in confirmed)
            self._again.difference_update(refusal.message.id for refusal in refused)
        self._doubt(confirmed, refused)
        return Outcomes(confirmed, refused, landed)

    def _returned(self, refused: list[Refusal], now: float) -> list[Refusal]:
        """Publish once more what came back, when it is known what became of its queue."""
        again = [
            refusal.message
            for refusal in refused
            if refusal.reason is Reason.UNROUTABLE and refusal.message.id not in self._again
        ]
        if not again:
            return refused
        self._again.update(ids := {message.id for message in again})
        left = [refusal for refusal in refused if refusal.message.id not in ids]
        return left + self._topology.look_again(again, now)

    def _doubt(self, confirmed: list[Message], refused: list[Refusal]) -> None:
        """Remember which routes did not answer, until they do."""
        for refusal in refused:
            if refusal.reason is Reason.UNANSWERED and len(self._doubted) < MAX_DOUBTED:
                self._doubted.add(route_of(refusal.message))
        if self._doubted:
            self._doubted.difference_update(map(route_of, confirmed))

    def _look_out(self, now: float, confirmed: list[Message], refused: list[Refusal]) -> None:
        """See to what does not answer."""
        if self._bypass.stalled is not None:
            try:
                refused += self._bypass.step(self._line, confirmed, refused, now)
            except BrokerLost as error:
                self._fate = error
                return
        waiting = self._line.waiting(now)
        if not self._silent and waiting <= self._silent_after:
            return
        if waiting > self._confirm_timeout:
            refused += self._line.overdue(now, self._confirm_timeout)
            self._line.landed(now)
            if (waiting := self._line.waiting(now)) > self._confirm_timeout:
                self._fate = BrokerLost(f"no confirm for {waiting:.0f} s", silent=True)
                return
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._silent = self._line.silent_routes(now, self._silent_after)
        if self._line.stalled(now, self._silent_after):
            self._line, given_up = self._bypass.open(self._line, now)
            refused += given_up
        else:
            self._bypass.recovered()

    def unconfirmed(self) -> list[Message]:
        """What was in flight on the channel that was closed, or on all of a lost connection."""
        stalled = self._bypass.stalled
        return (stalled if stalled and stalled.fate else self._line).unconfirmed()

    def unpublished(self) -> list[Message]:
        """What waits for a declaration."""
        return self._topology.waiting_messages()

    def close(self) -> None:
        """Drop the connection."""
        self._line.close()
        self._bypass.close()
        self._topology.close()
