"""What tells how many messages are ready in queues, again and again, over one connection."""

from collections.abc import Iterable
from typing import Protocol


class Sounder(Protocol):
    """A connection that is asked for depths alone. Raises BrokerLost where it breaks."""

    def read(self, queues: Iterable[str], /) -> dict[str, int]:
        """The messages ready in each queue that the broker shows."""

    def close(self) -> None:
        """Close it, without a word to a broker that may be frozen."""


class NoSounder:
    """Of a broker that does not tell."""

    def read(self, _queues: Iterable[str]) -> dict[str, int]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing to close."""
