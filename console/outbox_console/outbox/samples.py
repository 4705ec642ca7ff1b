"""The outbox at one moment, and what flowed since the moment before. Cheap on any backlog."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from outbox_console.outbox import receipts
from outbox_console.postgres.database import Session

#: Counts are exact while small, and of a sample beyond (outbox.stats). What is paused is pending.
COUNTS: Final = """
SELECT pending, scheduled, dead, expired,
       (SELECT coalesce(sum(messages), 0)::bigint FROM {outbox}.paused) AS paused
  FROM {outbox}.stats
"""
#: From here on a count reads a thousand pages: it is taken anew for every fifth sample, so that
#: nobody notices who looks.
LARGE: Final = 50_000
EVERY: Final = 5

#: Relays name their connections. What was committed is counted by id, above the newest of the
#: sample before. Of rows with a receipt the last few hundred tell how long it took from commit, or
#: due, to confirm.
FLOW: Final = """
SELECT clock_timestamp() AS at,
       extract(epoch FROM s.oldest_pending_age)::float8 AS oldest,
       coalesce((SELECT max(m.id) FROM {outbox}.message m), 0) AS newest,
       (SELECT count(*) FROM {outbox}.message m WHERE m.id > %(newest)s) AS committed,
       (SELECT coalesce(sum(cardinality(r.ids)), 0)::bigint FROM {outbox}.receipt r
         WHERE r.sent_at > %(since)s) AS confirmed,
       (SELECT max(r.sent_at) FROM {outbox}.receipt r) AS last_confirmed,
       (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(
                   epoch FROM r.sent_at - greatest(m.created_at, m.available_at)))::float8
          FROM (SELECT sent_at, slot, ids[1:20] AS ids FROM {outbox}.receipt
                 WHERE sent_at > %(since)s ORDER BY sent_at DESC LIMIT 10) r
         CROSS JOIN LATERAL unnest(r.ids) AS done (id)
         CROSS JOIN LATERAL (SELECT created_at, available_at FROM {outbox}.message
                              WHERE id = done.id AND slot = r.slot OFFSET 0) m) AS lag,
       (SELECT count(*) FROM pg_stat_activity
         WHERE application_name ~ '^outbox-relay ([0-9]|watch$)'
           AND datname = current_database()) AS relays
  FROM {outbox}.stats s
"""

#: What workers have told since, where they do and this person may know.
EXECUTED: Final = """
SELECT count(*) FROM inbox.receipt WHERE noted_at > %(since)s AND outcome <> 'held'
"""

#: Where the first sample begins: nothing flowed before it.
BEGIN: Final = """
SELECT clock_timestamp() AS at, coalesce(max(m.id), 0) AS newest FROM {outbox}.message m
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """How many there are in each state, and of the pending those that are paused."""

    pending: int
    scheduled: int
    dead: int
    expired: int
    paused: int = 0

    @property
    def are_large(self) -> bool:
        """Whether they are estimates that cost something."""
        return self.pending + self.scheduled + self.dead + self.expired > LARGE


@dataclass(frozen=True, slots=True)
class Begin:
    """A moment, as the database has it."""

    at: datetime
    newest: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to count from; counts that are `age` samples old."""

    at: datetime
    newest: int
    counts: Counts | None = None
    age: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """What the database answered."""

    at: datetime
    oldest: float
    newest: int
    committed: int
    confirmed: int
    last_confirmed: datetime | None
    lag: float | None
    relays: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The outbox at one moment. Rates are a second, since the sample before; times in seconds."""

    at: datetime
    pending: int
    scheduled: int
    dead: int
    expired: int
    oldest: float
    committed: float
    confirmed: float
    lag: float | None
    quiet: float | None
    relays: int
    executed: float | None
    paused: int = 0


async def begin(session: Session) -> Mark:
    """A mark to take the first sample from."""
    (found,) = await session.fetch(Begin, BEGIN)
    return Mark(found.at, found.newest)


async def take(session: Session, mark: Mark) -> tuple[Sample, Mark]:
    """A sample, and the mark for the next."""
    (flow,) = await session.fetch(Flow, FLOW, newest=mark.newest, since=mark.at)
    executed = None
    if await receipts.known(session):
        executed = await session.value(EXECUTED, since=mark.at)
    counts, age = mark.counts, mark.age + 1
    if counts is None or not counts.are_large or age >= EVERY:
        counts, age = (await session.fetch(Counts, COUNTS))[0], 0
    following = Mark(flow.at, max(flow.newest, mark.newest), counts, age)
    return sample(flow, counts, mark, executed), following


def sample(flow: Flow, counts: Counts, mark: Mark, executed: int | None) -> Sample:
    """What was read, as rates since the mark. Pure."""
    # The first is taken at its own mark: of so short a time no rate can be told.
    seconds = max((flow.at - mark.at).total_seconds(), 1.0)
    quiet = (flow.at - flow.last_confirmed).total_seconds() if flow.last_confirmed else None
    return Sample(
        at=flow.at,
        pending=counts.pending,
        scheduled=counts.scheduled,
        dead=counts.dead,
        expired=counts.expired,
        oldest=max(flow.oldest, 0.0),
        committed=flow.committed / seconds,
        confirmed=flow.confirmed / seconds,
        lag=None if flow.lag is None else max(flow.lag, 0.0),
        quiet=quiet,
        relays=flow.relays,
        executed=None if executed is None else executed / seconds,
        paused=counts.paused,
    )
