"""A claimed message: what goes on the wire, and the claim that entitles us to send it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Leased(NamedTuple):
    """A row of the work table that is ours for a while."""

    id: int
    slot: int
    attempts: int
    suspicion: int


class Message(NamedTuple):
    """One row to publish.

    A named tuple, not a dataclass: thousands are made a second, straight from the driver's rows.
    """

    id: int
    slot: int
    lease: int
    attempts: int
    suspicion: int
    message_id: str
    exchange: str
    routing_key: str
    headers: bytes  # JSON text
    properties: bytes  # JSON text
    body: bytes
    content_type: str
    content_encoding: str
    mandatory: bool
    declare: str  # JSON text
    expired: bool
    born: float  # when it was inserted or became due, on this process's monotonic clock

    @property
    def suspect(self) -> bool:
        """Whether a channel has died with this message on it: then it is published apart."""
        return self.suspicion > 0


class Reason(StrEnum):
    """Why a message was not confirmed. The values label `outbox_publish_failures_total`."""

    INVALID = "invalid"  # no broker could take it
    DENIED = "denied"  # the relay's settings do not let it pass
    EXPIRED = "expired"  # its time had passed before it could be published
    UNROUTABLE = "unroutable"  # the broker returned it: no queue is bound
    REJECTED = "rejected"  # the broker closed the channel over it
    FORBIDDEN = "forbidden"  # our user may not publish there
    SUSPECTED = "suspected"  # it could not be published apart yet
    UNDECLARED = "undeclared"  # its queue was one of too many to be declared at once
    NACKED = "nacked"  # a queue could not take it now


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message the broker did not take, with the broker's words for it."""

    message: Message
    reason: Reason
    detail: str


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


@dataclass(frozen=True, slots=True)
class Parking:
    """Where a refused message waits: `delay` seconds for another attempt, or as `dead`."""

    message: Message
    state: str
    attempts: int
    suspicion: int
    delay: float
    error: str
