"""A claimed message: what goes on the wire, the claim that entitles us to send it, its outcome."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Held(NamedTuple):
    """A message that is ours under a claim, and for as long as that claim holds it."""

    id: int
    slot: int
    claim_id: int


class Message(NamedTuple):
    """One row to publish.

    A named tuple, not a dataclass: thousands are made a second, straight from the driver's rows.
    """

    id: int
    slot: int
    claim_id: int
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
    task: str = ""
    claimed: float = 0.0  # when it was ours for sure, and not yet published; on that clock, too

    @property
    def held(self) -> "Held":
        """By what every write about it is fenced."""
        return Held(self.id, self.slot, self.claim_id)

    @property
    def size(self) -> int:
        """What it takes in memory, in bytes: all that can be large."""
        return len(self.body) + len(self.headers) + len(self.properties) + len(self.declare)

    @property
    def suspect(self) -> bool:
        """Whether it is a poison suspect: a channel or connection was closed with it in flight."""
        return self.suspicion > 0


class Reason(StrEnum):
    """Why a message was not confirmed. The values label `outbox_publish_failures_total`."""

    INVALID = "invalid"  # no broker could take it
    DENIED = "denied"  # the relay's settings do not let it pass
    EXPIRED = "expired"  # its time had passed before it could be published
    UNROUTABLE = "unroutable"  # the broker returned it: no queue is bound
    REJECTED = "rejected"  # the broker closed the channel over it
    TOO_LARGE = "too_large"  # larger than this broker takes
    FORBIDDEN = "forbidden"  # our user may not publish there
    SUSPECTED = "suspected"  # a poison suspect, for which quarantine had no room yet
    UNDECLARED = "undeclared"  # there was no time yet to declare its queue
    UNANSWERED = "unanswered"  # its queue or its node did not answer, or a limit was in its way
    HELD = "held"  # not published: its route is paused
    PAUSED = "paused"  # not published: somebody has paused what it belongs to
    DEEP = "deep"  # not published: as many as are wanted wait in its queue
    RATED = "rated"  # not published: no more a second are allowed
    UNKNOWN_TASK = "unknown task"  # not published: no live worker of its queue knows it
    NACKED = "nacked"  # a queue could not take it now


class Wait(NamedTuple):
    """The key of what a message waits for, and for how many seconds if that does not come."""

    key: str
    delay: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message the broker did not take, with the broker's words for it."""

    message: Message
    reason: Reason
    detail: str
    wait: Wait | None = None  # where it was not refused, but held on purpose


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of messages in flight since the last poll.

    `latencies` holds (seconds from publish to confirm, how many messages) for whole batches.
    """

    confirmed: list[Message]
    refused: list[Refusal]
    latencies: list[tuple[float, int]]


NOTHING: Final = Outcomes([], [], [])


@dataclass(frozen=True, slots=True)
class Parking:
    """Where a refused message waits: `delay` seconds for another attempt, or ends: dead, expired.

    One that waits for its `route` is tried before, as soon as that takes messages again.
    """

    message: Message
    state: str
    attempts: int
    suspicion: int
    delay: float
    error: str
    route: str | None = None
    rank: int = 0  # of those that wait for a route, lower ones are tried first
