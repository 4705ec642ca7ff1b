"""What the relay needs of a broker, whichever it is."""

from collections.abc import Sequence
from typing import Final, Protocol

from outbox_relay.core.message import Message, Outcomes, Refusal

#: The most poison suspects in flight.
MAX_SUSPECTS: Final = 32


class Open(Protocol):
    """Connects to the first broker that answers; raises BrokerLost where none does."""

    def __call__(self, *, for_suspects: bool = False, elsewhere: bool = False) -> "Publisher":
        """A publisher; one `for_suspects` keeps them from harming each other, if it can.

        `elsewhere` is asked for when the last one took messages, and confirmed none.
        """


class Publisher(Protocol):
    """One connection to a broker that confirms.

    `publish` and `poll` raise BrokerLost, after which only `unconfirmed`, `unpublished` and `close`
    may be called. Nothing here waits longer than the caller allows.
    """

    @property
    def max_suspects(self) -> int:
        """How many suspects can be in flight without one harming another."""

    @property
    def in_flight(self) -> int:
        """Messages taken from `publish` whose fate is not known yet."""

    @property
    def stuck(self) -> int:
        """How many of these wait for routes that do not answer, and get nothing more."""

    @property
    def hangs(self) -> bool:
        """Whether all that is in flight has been for so long that its fate may be heard later."""

    @property
    def in_flight_bytes(self) -> int:
        """The size of the others: all of a message counts that can be large."""

    @property
    def blocked(self) -> bool:
        """Whether the broker has asked for a pause."""

    @property
    def spotless(self) -> bool:
        """Whether any other relay of this broker could go on with it as with a new one."""

    @property
    def max_body(self) -> int | None:
        """The largest body that the broker takes, in bytes, once it has said so."""

    def publish(self, messages: Sequence[Message]) -> list[Refusal]:
        """Put messages on the wire, in order; those no broker could take come straight back."""

    def poll(self, timeout: float) -> Outcomes:
        """What is known by now, waiting at most `timeout` seconds for something to be."""

    def unconfirmed(self) -> list[Message]:
        """Messages that were in flight when it was lost: the broker may or may not have them."""

    def unpublished(self) -> list[Message]:
        """Messages that were taken and never put on the wire: they are no suspects."""

    def close(self) -> None:
        """Close the connection."""
