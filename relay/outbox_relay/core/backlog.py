"""What the database tells of itself: its history, what it holds, whether it keeps up."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class History:
    """Which history of its data a server lives in, and how far it has come: bytes of its log."""

    timeline: str
    position: int

    def continues(self, earlier: "History") -> bool:
        """Whether all that was seen then is still there.

        It is not where a standby was promoted, a dump restored, or a snapshot put back.
        """
        return self.timeline == earlier.timeline and self.position >= earlier.position


@dataclass(frozen=True, slots=True)
class Stats:
    """The row of `outbox.stats`; the age in seconds."""

    pending: int
    scheduled: int
    dead: int
    oldest_pending_age: float


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Whether vacuum keeps up with the work tables; NaN seconds where this login cannot see it."""

    ready_bytes: int
    parked_bytes: int
    ready_dead_tuples: int
    parked_dead_tuples: int
    horizon_age: float


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Messages that are held on purpose, by what holds them; and the age of a pause with no end."""

    counts: tuple[tuple[str, int], ...]
    endless: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What one look has counted for the metrics; None for what it could not, and why not."""

    stats: Stats | None = None
    upkeep: Upkeep | None = None
    held: HeldBack | None = None
    failures: tuple[tuple[str, str], ...] = ()
