"""Numbers: what the outbox holds, and whether the database keeps up with it."""

from dataclasses import dataclass


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
