"""When to look into the lanes, where messages with an ordering key wait for one another. Pure.

The database keeps the order, whoever looks and when. What is decided here is only how soon: in the
same transaction that settles a message, if lanes are in use, as that may let the next one go; while
there is none, ten times a second at most.
"""

from typing import Final

from outbox_relay.core.backoff import BUSY_POLL
from outbox_relay.core.claim import LaneClaim
from outbox_relay.core.cursor import Cursor

#: Seconds between two looks while lanes have been empty, and for how long that is.
CLAIM_EVERY: Final = 0.1
IN_USE_FOR: Final = 1.0
#: The most news that are looked at together.
MAX_NEWS: Final = 250


class Lanes:
    """Remembers when the lanes were looked at and when anything was found."""

    def __init__(self) -> None:
        self._cursor = Cursor()
        self._looked = self._next_look = 0.0
        self._found = float("-inf")

    def next_claim(self, now: float, room: int, *, settling: bool) -> LaneClaim | None:
        """How to look now, if it is time; `settling` where messages are settled meanwhile.

        Half the room is left to all that is in no lane.
        """
        in_use = now - self._found < IN_USE_FOR
        if now < self._next_look and not (in_use and settling):
            return None
        self._looked = now
        self._next_look = now + (BUSY_POLL if in_use else CLAIM_EVERY)
        limit = min(MAX_NEWS, max(1, room // 2)) if in_use else 1
        return LaneClaim(self._cursor.floor(now), limit)

    def claimed(self, claim: LaneClaim, news: list[int]) -> None:
        """What there was to be seen."""
        self._cursor.claimed(news, claim.limit)
        if news:
            self._found = self._looked
        if len(news) == claim.limit:
            # There may be more; but where there is room for one, others have their turn between.
            self._next_look = self._looked + (BUSY_POLL if claim.limit == 1 else 0.0)
