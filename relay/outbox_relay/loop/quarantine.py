"""Publishes poison suspects where each can harm only itself, while no other message waits for them.

A broker that closes a channel does not say over which message. Each suspect gets a channel of its
own: the poison message closes it again, and is refused; the others are confirmed. Where one closes
the whole connection, those that shared it are tried again one at a time.

The connection is opened on a thread of its own: no message waits for that either.
"""

from outbox_relay.broker.opening import Background, Opening
from outbox_relay.broker.publisher import MAX_SUSPECTS, Open, Publisher
from outbox_relay.core.decide import Core
from outbox_relay.core.message import NOTHING, Message, Outcomes, Reason, Refusal
from outbox_relay.errors import BrokerLost


class Quarantine:
    """Suspects in flight, on a publisher of their own that is open while there are any.

    A loss of that publisher's connection does not mean that the broker is away: only the main
    publisher's does.
    """

    def __init__(self, open_publisher: Open) -> None:
        self._open = open_publisher
        self._opening: Opening[Publisher] | None = None
        self._publisher: Publisher | None = None
        self._width = MAX_SUSPECTS

    @property
    def busy(self) -> bool:
        """Whether a suspect is in flight."""
        return self._publisher is not None and self._publisher.in_flight > 0

    def step(self, core: Core, now: float) -> Outcomes:
        """Publish and poll what can be done now, without waiting for the broker."""
        if not (self.busy or core.has_suspects):
            self.close()  # else nobody would send its heartbeats
            return NOTHING
        suspects: list[Message] = []
        refused: list[Refusal] = []
        try:
            if (publisher := self._publisher or self._opened()) is None:
                return NOTHING
            room = min(self._width, publisher.max_suspects) - publisher.in_flight
            suspects, refused = core.next_suspects(room, now)
            refused += publisher.publish(suspects)
            suspects = []
            outcomes = publisher.poll(0)
        except BrokerLost as error:
            core.suspect_again(suspects)  # they were not in flight
            outcomes = self._lost(error, core)
        if outcomes.confirmed or outcomes.refused:
            self._width = min(MAX_SUSPECTS, 2 * self._width)
        return Outcomes(outcomes.confirmed, refused + outcomes.refused, outcomes.latencies)

    def _opened(self) -> Publisher | None:
        """The publisher, as soon as it is connected."""
        if self._opening is None:
            opening = Background(lambda: self._open(for_suspects=True), _close)
            self._opening = opening
        if (publisher := self._opening.result()) is not None:
            self._opening, self._publisher = None, publisher
        return publisher

    def _lost(self, error: BrokerLost, core: Core) -> Outcomes:
        """The connection was lost: refuse its only suspect, or try all of them again."""
        unconfirmed = self._publisher.unconfirmed() if self._publisher else []
        core.suspect_again(self._publisher.unpublished() if self._publisher else [])
        self.close()
        if error.poison and len(unconfirmed) == 1:
            return Outcomes([], [Refusal(unconfirmed[0], Reason.REJECTED, str(error))], [])
        core.suspect_again(unconfirmed)
        if error.poison:
            self._width = 1
            return NOTHING
        later = core.drop_suspects()
        return Outcomes([], [Refusal(each, Reason.SUSPECTED, str(error)) for each in later], [])

    def close(self) -> None:
        """Forget the suspects in flight, whose claims the caller gives back, and disconnect."""
        if self._opening:
            self._opening.abandon()
        if self._publisher:
            self._publisher.close()
        self._opening = self._publisher = None


def _close(publisher: Publisher) -> None:
    publisher.close()
