"""Where the next claim starts reading. Pure; nothing is skipped for longer than the head's turn.

Ids are handed out before their transactions commit, so a lower id can appear after a higher one
has been claimed; a dead relay's rows lie below as well. Reading from the very head each time finds
both, but wades through every dead index entry whenever somebody holds the xmin horizon. So there
are three floors:

- the *head* (0), once a second: finds everything. Where that takes long, as among dead entries by
  the million, so seldom that it takes a tenth of the time, but once a minute at least;
- the *trail*, a second or two behind: finds late commits while there is little to do;
- the *front*, the last id claimed: while whole batches come back, there is no need to look behind.
"""

from typing import Final

from outbox_relay.core.budget import Budget

SWEEP_SECONDS: Final = 1.0
HEAD: Final = 0


class Cursor:
    """The three floors, and which of them is due."""

    def __init__(self) -> None:
        self._front = HEAD
        self._trail = self._next_trail = HEAD
        self._trailed = float("-inf")
        self._sweeps = Budget(SWEEP_SECONDS)
        self._sweeping = False
        self._full = False

    def floor(self, now: float) -> int:
        """The id above which to claim now; `now` in monotonic seconds."""
        if self._sweeps.is_due(now):
            self._sweeping = True
            self._trailed = now
            self._trail = self._next_trail = self._front
            return HEAD
        self._sweeping = False
        if now - self._trailed >= SWEEP_SECONDS:
            self._trailed = now
            self._trail, self._next_trail = self._next_trail, self._front
        return self._front if self._full else self._trail

    def looked(self, seconds: float) -> None:
        """Note how long the database was waited for, for the look from the last floor."""
        if self._sweeping:
            self._sweeps.took(seconds)

    def claimed(self, ids: list[int], limit: int) -> None:
        """Note what a claim of at most `limit` rows found."""
        self._full = len(ids) >= limit
        if ids:
            # A full batch may have started below the front: go on from where it ended.
            self._front = max(ids) if self._full else max(self._front, max(ids))

    def rewind(self) -> None:
        """Claim from the head next time: rows have been given back."""
        self._sweeps.soon()
