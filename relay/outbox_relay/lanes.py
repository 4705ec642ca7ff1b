"""When to look into the lanes, where messages with an ordering key wait for one another.

The database keeps the order, whoever looks and when. What is decided here is only how soon: at once
after a message of a lane may have been settled, as that lets the next one go; while there is none,
ten times a second, which costs an idle relay next to nothing.
"""

from dataclasses import replace
from typing import Final

from outbox_relay.backoff import BUSY_POLL
from outbox_relay.cursor import Cursor
from outbox_relay.message import Leased, Turn
from outbox_relay.store import Store

#: Seconds between two looks while lanes have been empty, and for how long that is.
LOOK_EVERY: Final = 0.1
IN_USE_FOR: Final = 1.0
#: News looked at a time.
MOST: Final = 250


class Lanes:
    """Remembers when the lanes were looked at and when anything was found."""

    def __init__(self) -> None:
        self._cursor = Cursor()
        self._next_look = 0.0
        self._found = float("-inf")

    def claim(self, store: Store, turn: Turn, now: float) -> tuple[Turn, list[Leased]]:
        """What was next in its lane, and the turn with as much room less."""
        if now < self._next_look or not turn.limit:
            return turn, []
        # Half the room is left to all that is in no lane.
        most = min(MOST, max(1, turn.limit // 2))
        news, heads = store.claim_lanes(self._cursor.floor(now), most, turn)
        self._cursor.claimed(news, most)
        if news:
            self._found = now
        if len(news) < most:
            self._next_look = now + (BUSY_POLL if self._in_use(now) else LOOK_EVERY)
        return (replace(turn, limit=turn.limit - len(heads)) if heads else turn), heads

    def settled(self, now: float) -> None:
        """Messages were: those behind them in a lane may go."""
        if self._in_use(now):
            self._next_look = 0.0

    def _in_use(self, now: float) -> bool:
        return now - self._found < IN_USE_FOR
