"""What the relay asks of the database, and what it gets: claims, and the messages behind them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from outbox_relay.core.message import Message


class Leased(NamedTuple):
    """A row of the work table that is ours for a while."""

    id: int
    slot: int
    attempts: int
    suspicion: int


@dataclass(frozen=True, slots=True)
class Look:
    """Take what is next out of lanes, going by up to `most` news with ids above `above`."""

    above: int
    most: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One transaction: settle `done`, look into `lanes`, lease up to `limit` rows above `floor`.

    What is leased, under the number `lease`, is ours for `term` seconds.
    """

    done: list[Message]
    floor: int
    limit: int
    lease: int
    term: float
    lanes: Look | None = None

    @property
    def room(self) -> int:
        """How many rows it may lease."""
        return self.limit + (self.lanes.most if self.lanes else 0)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Rows leased, whose messages are still to be fetched."""

    rows: list[Leased]
    lease: int
    since: float  # before the lease began, on this process's monotonic clock


@dataclass(frozen=True, slots=True)
class Claim:
    """What one turn leased: messages to publish, and rows whose body must wait for room."""

    messages: list[Message]
    too_large: list[tuple[int, int]]  # id, lease
    astray: list[tuple[int, int]] = field(default_factory=list)  # work without a message


@dataclass(frozen=True, slots=True)
class Answer:
    """What one exchange with the database brought: messages leased before, and rows leased now.

    `heads` were the first of their lanes, found by these `news`.
    """

    claim: Claim | None
    leased: list[Leased]
    heads: list[Leased] = field(default_factory=list)
    news: list[int] = field(default_factory=list)
