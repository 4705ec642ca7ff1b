"""What the relay needs of a broker to fetch dead letters, whichever broker it is."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from outbox_relay.core.dead_letter import DeadLetter


class DeadLetters(Protocol):
    """A connection to the queues of dead letters. Whatever is not `done` stays where it is.

    Every method raises BrokerLost, after which only `close` may be called.
    """

    def waiting(self, queue: str) -> int | None:
        """How many lie there; None where no such queue is there, may be seen, or answers."""

    def read(self, queue: str, limit: int) -> Iterator[DeadLetter]:
        """The next of them, oldest first and each once, however often this is called."""

    def done(self, letters: Sequence[DeadLetter]) -> None:
        """Take these out for good."""

    def may_look_again(self, queue: str) -> bool:
        """Whether what is left there bears any number of looks."""

    def close(self) -> None:
        """Put back what was read and is not done, and close the connection."""


class NoDeadLetters:
    """Those of a broker that has none."""

    def waiting(self, _queue: str) -> int | None:
        """There is no such queue."""
        return None

    def read(self, _queue: str, _limit: int) -> Iterator[DeadLetter]:
        """Nothing."""
        return iter(())

    def done(self, letters: Sequence[DeadLetter]) -> None:
        """Nothing was read."""

    def may_look_again(self, _queue: str) -> bool:
        """There is nothing to look at."""
        return False

    def close(self) -> None:
        """Nothing is open."""
