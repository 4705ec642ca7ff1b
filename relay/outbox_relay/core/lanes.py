"""When to claim from lanes, where messages with an ordering key wait for one another. Pure.

The database keeps the order, whoever claims and when. What is decided here is only how soon. While
lanes are in use, that is in each transaction that settles a message, which may let the next one of
its lane go. While they are not, it is ten times a second.
"""

from typing import Final

from outbox_relay.core.backoff import BUSY_POLL
from outbox_relay.core.claim import LaneClaim
from outbox_relay.core.cursor import Cursor

#: Seconds between two claims while lanes are not in use.
CLAIM_EVERY: Final = 0.1
#: Lanes are in use for so many seconds after anything was found in them.
IN_USE_FOR: Final = 1.0
#: The most news that one claim goes by.
MAX_NEWS: Final = 250


class Lanes:
    """Remembers when lanes were claimed from, and when anything was found."""

    def __init__(self) -> None:
        self._cursor = Cursor()
        self._last_claim = self._next_claim = 0.0
        self._found = float("-inf")

    def next_claim(self, now: float, room: int, *, settling: bool) -> LaneClaim | None:
        """A claim, if it is time for one; `settling` if the same transaction settles messages.

        Half the room is left to messages that are in no lane.
        """
        in_use = now - self._found < IN_USE_FOR
        if now < self._next_claim and not (in_use and settling):
            return None
        self._last_claim = now
        self._next_claim = now + (BUSY_POLL if in_use else CLAIM_EVERY)
        limit = min(MAX_NEWS, max(1, room // 2)) if in_use else 1
        return LaneClaim(self._cursor.floor(now), limit)

    def look_now(self) -> None:
        """Claim with the next turn."""
        self._next_claim = 0.0

    def claimed(self, claim: LaneClaim, news: list[int], seconds: float = 0.0) -> None:
        """The claim was committed within `seconds`; it went by these news."""
        self._cursor.looked(seconds)
        self._cursor.claimed(news, claim.limit)
        if news:
            self._found = self._last_claim
        if len(news) == claim.limit:
            # There may be more. Where there is room for one only, other messages go in between.
            self._next_claim = self._last_claim + (BUSY_POLL if claim.limit == 1 else 0.0)
