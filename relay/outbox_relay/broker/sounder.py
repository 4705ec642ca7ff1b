"""What tells how deep queues are, and how full the broker, again and again, over one connection."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from outbox_relay.core.memory import Used


@dataclass(frozen=True, slots=True)
class Told:
    """What the broker told of queues; those that are in none of these were not asked about."""

    ready: Mapping[str, int] = field(default_factory=dict)
    #: Those that are not there, or not to be seen.
    absent: frozenset[str] = frozenset()
    #: Those that gave no answer in time.
    silent: frozenset[str] = frozenset()


class Sounder(Protocol):
    """A connection that is asked for depths alone. Raises BrokerLost where it breaks."""

    def read(self, queues: Iterable[str], /) -> Told:
        """How many messages are ready, of as many of the queues as there was time for."""

    def memory(self) -> Used:
        """How much of its memory is used, where messages could fill it."""

    def close(self) -> None:
        """Close it, without a word to a broker that may be frozen."""


class NoSounder:
    """Of a broker that does not tell."""

    def read(self, queues: Iterable[str]) -> Told:
        """None."""
        return Told(absent=frozenset(queues))

    def memory(self) -> Used:
        """Nothing."""
        return Used()

    def close(self) -> None:
        """Nothing to close."""
