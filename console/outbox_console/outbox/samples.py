"""The outbox at one moment, and what flowed since the moment before. Cheap on any backlog."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from outbox_console.outbox import receipts
from outbox_console.postgres.database import Session

#: Counts are exact while small, and sampled beyond (outbox.stats). Relays name their connections.
#: What was committed is counted by id, above the newest of the moment before. Of rows with a
#: receipt the last few hundred tell how long it took from commit, or due, to confirm.
SAMPLE: Final = """
SELECT clock_timestamp() AS at, s.pending, s.scheduled, s.dead, s.expired,
       extract(epoch FROM s.oldest_pending_age)::float8 AS oldest,
       coalesce((SELECT max(m.id) FROM {outbox}.message m), 0) AS newest,
       (SELECT count(*) FROM {outbox}.message m WHERE m.id > %(newest)s) AS committed,
       (SELECT coalesce(sum(cardinality(r.ids)), 0)::bigint FROM {outbox}.receipt r
         WHERE r.sent_at > %(since)s) AS confirmed,
       (SELECT max(r.sent_at) FROM {outbox}.receipt r) AS last_confirmed,
       (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(
                   epoch FROM r.sent_at - greatest(m.created_at, m.available_at)))::float8
          FROM (SELECT sent_at, ids[1:20] AS ids FROM {outbox}.receipt
                 WHERE sent_at > %(since)s ORDER BY sent_at DESC LIMIT 10) r
         CROSS JOIN LATERAL unnest(r.ids) AS done (id)
         CROSS JOIN LATERAL (SELECT created_at, available_at FROM {outbox}.message
                              WHERE id = done.id OFFSET 0) m) AS lag,
       (SELECT count(*) FROM pg_stat_activity
         WHERE application_name ~ '^outbox-relay [0-9]' AND datname = current_database()) AS relays
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
class Mark:
    """A moment to count from."""

    at: datetime
    newest: int


@dataclass(frozen=True, slots=True)
class Read:
    """What the database answered."""

    at: datetime
    pending: int
    scheduled: int
    dead: int
    expired: int
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


async def begin(session: Session) -> Mark:
    """A mark to take the first sample from."""
    return (await session.fetch(Mark, BEGIN))[0]


async def take(session: Session, mark: Mark) -> tuple[Sample, Mark]:
    """A sample, and the mark for the next."""
    (read,) = await session.fetch(Read, SAMPLE, newest=mark.newest, since=mark.at)
    executed = None
    if await receipts.known(session):
        executed = await session.value(EXECUTED, since=mark.at)
    return sample(read, mark, executed), Mark(read.at, max(read.newest, mark.newest))


def sample(read: Read, mark: Mark, executed: int | None = None) -> Sample:
    """What was read, as rates since the mark. Pure."""
    # The first is taken at its own mark: of so short a time no rate can be told.
    seconds = max((read.at - mark.at).total_seconds(), 1.0)
    quiet = (read.at - read.last_confirmed).total_seconds() if read.last_confirmed else None
    return Sample(
        at=read.at,
        pending=read.pending,
        scheduled=read.scheduled,
        dead=read.dead,
        expired=read.expired,
        oldest=max(read.oldest, 0.0),
        committed=read.committed / seconds,
        confirmed=read.confirmed / seconds,
        lag=None if read.lag is None else max(read.lag, 0.0),
        quiet=quiet,
        relays=read.relays,
        executed=None if executed is None else executed / seconds,
    )
