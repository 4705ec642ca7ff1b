"""Publishes messages under suspicion where each can only harm itself, while nothing else waits.

A broker that closes a channel does not say over which message. On a channel of its own, the culprit
convicts itself, and the others are cleared by their confirms. Where one takes a whole connection
with it, those that shared it are tried again one at a time.
"""

from outbox_relay.broker.publisher import MAX_SUSPECTS, Open, Publisher
from outbox_relay.core.decide import Core
from outbox_relay.core.message import NOTHING, Message, Outcomes, Reason, Refusal
from outbox_relay.core.suspects import MAX_WAITING
from outbox_relay.errors import BrokerLost


class Quarantine:
    """Suspects in flight, on a publisher that is there while there are any.

    What becomes of its connection is no news of the broker: others are to tell that it is away.
    """

    def __init__(self, open_publisher: Open) -> None:
        self._open = open_publisher
        self._publisher: Publisher | None = None
        self._width = MAX_SUSPECTS

    @property
    def busy(self) -> bool:
        """Whether a suspect is on its way."""
        return self._publisher is not None and self._publisher.in_flight > 0

    def step(self, core: Core) -> Outcomes:
        """Move on, without waiting."""
        if not (self.busy or core.has_suspects):
            self.close()  # its heartbeat would be nobody's
            return NOTHING
        suspects: list[Message] = []
        refused: list[Refusal] = []
        try:
            if self._publisher is None:
                self._publisher = self._open(for_suspects=True)
            room = min(self._width, self._publisher.max_suspects) - self._publisher.in_flight
            suspects = core.next_suspects(room)
            refused = self._publisher.publish(suspects)
            suspects = []
            outcomes = self._publisher.poll(0)
        except BrokerLost as error:
            core.suspect_again(suspects)  # they never were in flight
            outcomes = self._lost(error, core)
        if outcomes.confirmed or outcomes.refused:
            self._width = min(MAX_SUSPECTS, 2 * self._width)
        return Outcomes(outcomes.confirmed, refused + outcomes.refused, outcomes.latencies)

    def _lost(self, error: BrokerLost, core: Core) -> Outcomes:
        """The connection is gone: over its only suspect, over one of several, or by itself."""
        unconfirmed = self._publisher.unconfirmed() if self._publisher else []
        self.close()
        if error.poison and len(unconfirmed) == 1:
            return Outcomes([], [Refusal(unconfirmed[0], Reason.REJECTED, str(error))], [])
        core.suspect_again(unconfirmed)
        if error.poison:
            self._width = 1
            return NOTHING
        later = core.next_suspects(MAX_WAITING)
        return Outcomes([], [Refusal(each, Reason.SUSPECTED, str(error)) for each in later], [])

    def close(self) -> None:
        """Forget the suspects in flight, whose claims the caller gives back, and disconnect."""
        if self._publisher:
            self._publisher.close()
        self._publisher = None
