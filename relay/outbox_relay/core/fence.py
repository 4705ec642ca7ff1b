"""The fence: what was claimed waits until enough standbys have what it was read from. Pure.

A fail-over to an asynchronous standby loses the last commits. None of what is let through here is
among them, as long as the standby that is promoted has flushed as much as the last one counted.
Claims are renewed while they wait, however long that is. Without a fence nothing waits.
"""

from collections import deque
from typing import Final, NamedTuple

from outbox_relay.core.backoff import BUSY_POLL
from outbox_relay.core.claim import Claim, Fetched, Standbys
from outbox_relay.core.message import Held

#: A wait of so many seconds is worth a word, and the standbys are asked less often from then on.
LONG: Final = 1.0
#: How often they are asked then, in seconds.
SLOW_POLL: Final = 0.1
#: How many times within a lease the claims that wait are renewed.
RENEWALS_PER_LEASE: Final = 4


class Waiting(NamedTuple):
    """What a claim brought, which is to wait, and since when it is surely ours."""

    fetched: Fetched
    claim: Claim
    since: float
    bytes: int

    @property
    def held(self) -> list[Held]:
        """All that the claim took."""
        return [Held(row.id, row.slot, self.claim.claim_id) for row in self.claim.rows]


class Fence:
    """Keeps what was fetched, oldest first; `now` is in monotonic seconds."""

    def __init__(self, standbys: int, lease: float) -> None:
        self.standbys = standbys
        self.lease = lease
        self._flushed = 0
        self._connected = 0
        self._waiting: deque[Waiting] = deque()
        self._look_at = 0.0

    @property
    def messages(self) -> int:
        """How many wait."""
        return sum(len(each.claim.rows) for each in self._waiting)

    @property
    def bytes(self) -> int:
        """The size of their bodies."""
        return sum(each.bytes for each in self._waiting)

    def hold(self, fetched: Fetched, claim: Claim) -> None:
        """Keep this until the standbys have flushed what its claim has seen."""
        size = sum(m.size for m in fetched.messages) if self.standbys else 0
        self._waiting.append(Waiting(fetched, claim, claim.since, size))

    def heard(self, standbys: Standbys, now: float) -> None:
        """The database has told how far they are."""
        self._flushed, self._connected = standbys.flushed, standbys.connected
        long = self.seconds(now) > LONG
        self._look_at = now + (SLOW_POLL if long else BUSY_POLL)

    def take(self) -> Waiting | None:
        """The oldest, if it need not wait any longer."""
        if self._waiting and self._waiting[0].claim.position <= self._flushed:
            return self._waiting.popleft()
        return None

    def seconds(self, now: float) -> float:
        """How long the oldest has waited."""
        return now - self._waiting[0].claim.since if self._waiting else 0.0

    def next_look(self, now: float) -> float:
        """Seconds until the standbys are to be asked again."""
        return self._look_at - now if self._waiting else float("inf")

    def complaint(self, now: float) -> str | None:
        """What to say of a long wait."""
        if self.seconds(now) < LONG:
            return None
        return (
            f"{self.messages} messages wait for OUTBOX_FENCE=standby:{self.standbys}: "
            f"{self._connected} standbys are connected"
        )

    def renewal(self, now: float) -> list[Held]:
        """What is to be renewed now, so that it stays ours while it waits.

        What has waited longer than its lease may be another relay's, and is left alone.
        """
        age, held = self.lease / RENEWALS_PER_LEASE, list[Held]()
        for place, each in enumerate(self._waiting):
            if age < now - each.since < self.lease:
                held += each.held
                self._waiting[place] = each._replace(since=now)
        return held

    def clear(self) -> None:
        """Nothing waits any more: it was given back."""
        self._waiting.clear()
