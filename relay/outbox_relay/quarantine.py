"""Publishes messages under suspicion one at a time, on a connection where only they can die.

A broker that closes a channel does not say over which message. Published alone, the culprit
convicts itself, and the others are cleared by their confirms; meanwhile nothing else waits.
"""

from collections.abc import Callable
from typing import Final

from outbox_relay.core import Core
from outbox_relay.errors import BrokerLost
from outbox_relay.message import Message, Reason, Refusal
from outbox_relay.publisher import NOTHING, Outcomes, Publisher

#: By this reply code a broker says that our user lacks a right, not that a message is bad.
ACCESS_REFUSED: Final = "403"


class Quarantine:
    """At most one message in flight, on a publisher opened when it is first needed."""

    def __init__(self, open_publisher: Callable[[], Publisher]) -> None:
        self._open = open_publisher
        self._publisher: Publisher | None = None
        self._suspect: Message | None = None

    @property
    def busy(self) -> bool:
        """Whether a suspect is on its way."""
        return self._suspect is not None

    def step(self, core: Core) -> Outcomes:
        """Move on by one suspect, without waiting. Raises BrokerLost where the broker is away."""
        if self._suspect is None:
            self._suspect = core.next_suspect()
            if self._suspect is None:
                return NOTHING
            if self._publisher is None:
                self._publisher = self._open()
            if refused := self._publisher.publish([self._suspect]):
                self._suspect = None
                return Outcomes([], refused, [])
        return self._watch(self._suspect)

    def _watch(self, suspect: Message) -> Outcomes:
        assert self._publisher is not None
        try:
            outcomes = self._publisher.poll(0)
        except BrokerLost as error:
            if not error.blame:
                self.close()
                raise
            self._suspect = None
            if not self._publisher.reopen():
                self.close()
            reason = Reason.FORBIDDEN if ACCESS_REFUSED in str(error) else Reason.REJECTED
            return Outcomes([], [Refusal(suspect, reason, str(error))], [])
        if outcomes.confirmed or outcomes.refused:
            self._suspect = None
        return outcomes

    def close(self) -> None:
        """Forget the suspect in flight, whose claim the caller gives back, and disconnect."""
        self._suspect = None
        if self._publisher:
            self._publisher.close()
        self._publisher = None
