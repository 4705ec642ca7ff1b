"""What the relay asks of the database, and what it gets: claims, and the messages behind them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from outbox_relay.core.message import Held, Message, Refusal
from outbox_relay.core.size import Oversized


class ClaimedRow(NamedTuple):
    """A row of the work table that a claim has taken."""

    id: int
    slot: int
    attempts: int
    suspicion: int


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """Claim what is next in its lane, going by up to `limit` news with ids above `above`."""

    above: int
    limit: int


@dataclass(frozen=True, slots=True)
class RouteClaim:
    """Claim up to so many of the messages that wait for each of these routes.

    Those of the lowest rank come first; of the routes in `by_age`, the oldest.
    """

    routes: tuple[str, ...]
    limits: tuple[int, ...]
    by_age: frozenset[str] = frozenset()

    @property
    def limit(self) -> int:
        """How many it may claim."""
        return sum(self.limits)

    def __add__(self, other: "RouteClaim") -> "RouteClaim":
        """Both."""
        return RouteClaim(self.routes + other.routes, self.limits + other.limits)


@dataclass(frozen=True, slots=True)
class Turn:
    """One transaction: settle `done`, claim from `lanes`, claim up to `limit` rows above `floor`.

    What is claimed, under the number `claim_id`, is ours for `lease_seconds`.
    """

    done: list[Message]
    floor: int
    limit: int
    claim_id: int
    lease_seconds: float
    lanes: LaneClaim | None = None
    routes: RouteClaim | None = None

    @property
    def room(self) -> int:
        """How many rows it may claim."""
        lanes = self.lanes.limit if self.lanes else 0
        return self.limit + lanes + (self.routes.limit if self.routes else 0)


@dataclass(frozen=True, slots=True)
class Claim:
    """Rows that are claimed, and whose messages are still to be fetched."""

    rows: list[ClaimedRow]
    claim_id: int
    since: float  # before the lease began, on this process's monotonic clock
    max_body: int | None = None  # in bytes; a larger one need not be fetched
    position: int = 0  # of the database's log: all that the claim has seen is committed before it


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a claim brought: messages, rows too large to be fetched now, rows without a message."""

    messages: list[Message]
    too_large: list[Held]
    orphans: list[Held] = field(default_factory=list)
    oversized: list[Oversized] = field(default_factory=list)


class Standbys(NamedTuple):
    """How far the database's log has come, in bytes, and how far those who copy it have."""

    written: int  # here, by the end of the turn
    flushed: int  # by as many standbys as the fence asks for; 0 where there are fewer
    connected: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What one round trip brought: the messages of an earlier claim, and rows claimed now.

    `heads` were the first of their lanes, found by these `news`. `unsettled` are the ids of those
    that were confirmed, but whose row is locked, gone, or not under that claim any more. `waited`
    had waited for the routes that stand beside them. `standbys` are told where there is a fence.
    """

    fetched: Fetched | None
    rows: list[ClaimedRow]
    heads: list[ClaimedRow] = field(default_factory=list)
    news: list[int] = field(default_factory=list)
    unsettled: list[int] = field(default_factory=list)
    waited: list[tuple[ClaimedRow, str]] = field(default_factory=list)
    standbys: Standbys | None = None

    @property
    def claimed(self) -> list[ClaimedRow]:
        """All rows that are ours by this turn."""
        return self.heads + [row for row, _ in self.waited] + self.rows


@dataclass(frozen=True, slots=True)
class Sorted:
    """What was fetched, by what is to be done with it."""

    publish: list[Message]  # now
    refused: list[Refusal]  # without being published
    later: list[Held]  # to be given back: their bodies had no room


class Batch(NamedTuple):
    """Messages ready to be published, and since when they are ours."""

    messages: list[Message]
    since: float
