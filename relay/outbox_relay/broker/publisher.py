"""What the relay needs of a broker, whichever it is."""

from collections.abc import Sequence
from typing import Final, Protocol

from outbox_relay.core.message import Message, Outcomes, Refusal

#: The most messages under suspicion in flight.
WIDTH: Final = 32


class Open(Protocol):
    """Connects to the first broker that answers; raises BrokerLost where none does."""

    def __call__(self, *, apart: bool = False) -> "Publisher":
        """A publisher; one that keeps several messages `apart`, if asked to."""


class Publisher(Protocol):
    """One connection to a broker that confirms.

    `publish` and `poll` raise BrokerLost, after which only `in_doubt` and `close` may be called.
    Nothing here waits longer than the caller allows.
    """

    @property
    def apart(self) -> int:
        """How many can be in flight without one being harmed by another."""

    @property
    def in_flight(self) -> int:
        """Messages published and not confirmed."""

    @property
    def in_flight_bytes(self) -> int:
        """The size of their bodies."""

    @property
    def blocked(self) -> bool:
        """Whether the broker has asked for a pause."""

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, in order; those no broker could take come straight back."""

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""

    def in_doubt(self) -> list[Message]:
        """Messages the broker may or may not have, once it is lost."""

    def close(self) -> None:
        """Let go of the connection."""
