"""Drains the outbox with real `outbox-relay run` processes and times them from their first claim.

A lock on the work table is the starting gate: every relay has started, has connected to database
and broker, and stands in its first claim when the lock is released. The clock starts there, on
Postgres' own time, and stops at the receipt that settles the last of the messages: the first claim,
the filling and emptying of the window and every settlement count, the start and end of the
processes do not. The same holds for CPU time.
"""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic, sleep
from typing import Final

import psycopg

from bench.instruments import cpu
from bench.instruments.postgres import wal_since
from bench.instruments.run import Run
from bench.instruments.stored import settled
from bench.lab import Connection, Lab, Unbelievable
from bench.programs.relay import Relay

START_SECONDS: Final = 30
DRAIN_SECONDS: Final = 300
POLL_SECONDS: Final = 0.05
#: Looks for the end are rarer the longer it takes: each costs Postgres some milliseconds.
POLL_SHARE: Final = 0.2

WAITING: Final = """
SELECT count(*) FROM pg_locks
WHERE relation = 'outbox.ready'::regclass AND mode = 'RowExclusiveLock' AND NOT granted
"""
NOW: Final = "SELECT clock_timestamp(), pg_current_wal_insert_lsn()"
#: The first receipt by which so many were settled: how many that were, when, and the longest time
#: without a receipt until then.
FINISH: Final = """
SELECT settled, extract(epoch FROM sent_at - %(clock)s)::float8,
       extract(epoch FROM silence)::float8
FROM (
    SELECT sent_at, sum(cardinality(ids)) OVER (ORDER BY sent_at)::bigint AS settled,
           max(pause) OVER (ORDER BY sent_at) AS silence
    FROM (SELECT sent_at, ids, sent_at - lag(sent_at, 1, %(clock)s) OVER (ORDER BY sent_at) AS pause
          FROM outbox.receipt) paused
) r
WHERE settled >= %(messages)s ORDER BY sent_at LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Target:
    """The brokers, one URL for each relay, the processes whose CPU they cost, and more settings."""

    urls: tuple[str, ...]
    pids: tuple[int, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


def drain(lab: Lab, target: Target, messages: int) -> Run:
    """Drain so many messages of the outbox, and time these; others may follow."""
    lab.admin.execute("TRUNCATE outbox.receipt")
    with ExitStack() as stack:
        with _gate(lab) as gate:
            relays = [
                stack.enter_context(running(lab, url, **target.settings)) for url in target.urls
            ]
            _wait_at_gate(gate, relays)
            meters = _Meters(lab, target, relays)
            clock, lsn = gate.execute(NOW).fetchall()[0]
        _wait_for(lab, messages, relays)
        total = settled(lab)
        spent, wal = meters.spent(), wal_since(lab, lsn)
    finished, seconds, silence = finish(lab.admin, clock, messages)
    # What was spent went into all of them, the time only into those up to the finish.
    share = finished / total
    cpu_seconds = {who: s * share for who, s in spent.items()}
    return Run(finished, seconds, cpu_seconds, silence, round(wal * share))


def finish(connection: Connection, clock: datetime, messages: int) -> tuple[int, float, float]:
    """How many were settled when so many were, the seconds since the clock, and the silence."""
    found = connection.execute(FINISH, {"clock": clock, "messages": messages}).fetchall()[0]
    finished, seconds, silence = found
    return finished, seconds, silence


@contextmanager
def running(lab: Lab, url: str, **settings: str) -> Iterator[Relay]:
    """Run a relay for the length of a block, then let it end in order."""
    servers = {"OUTBOX_DATABASE_URL": lab.database_url, "OUTBOX_BROKER_URL": url}
    relay = Relay(lab.folder, **servers, **settings)
    try:
        yield relay
        relay.process.send_signal(signal.SIGTERM)
        if (code := relay.process.wait(START_SECONDS)) != 0:
            raise Unbelievable(f"a relay ended with {code}:\n{relay.words}")
    finally:
        relay.kill()


class _Meters:
    """CPU seconds since it was made, by who spent them."""

    def __init__(self, lab: Lab, target: Target, relays: Sequence[Relay]) -> None:
        self._pids = {
            "sender": [relay.pid for relay in relays],
            "postgres": [lab.postgres.process.pid],
            "broker": [*target.pids],
        }
        self._before = self._read()

    def spent(self) -> dict[str, float]:
        now = self._read()
        return {who: now[who] - before for who, before in self._before.items()}

    def _read(self) -> dict[str, float]:
        return {who: cpu.spent(*pids) for who, pids in self._pids.items()}


@contextmanager
def _gate(lab: Lab) -> Iterator[Connection]:
    """Hold every claim up until the end of the block."""
    with psycopg.connect(lab.database_url) as connection:
        connection.execute("LOCK TABLE outbox.ready IN SHARE MODE")
        yield connection


def _wait_at_gate(gate: Connection, relays: Sequence[Relay]) -> None:
    deadline = monotonic() + START_SECONDS
    while gate.execute(WAITING).fetchall()[0][0] < len(relays):
        _check(relays, deadline, "begun to claim")
        sleep(POLL_SECONDS)


def _wait_for(lab: Lab, messages: int, relays: Sequence[Relay]) -> None:
    began = monotonic()
    while settled(lab) < messages:
        _check(relays, began + DRAIN_SECONDS, f"settled {messages} messages")
        sleep(max(POLL_SECONDS, POLL_SHARE * (monotonic() - began)))


def _check(relays: Sequence[Relay], deadline: float, what: str) -> None:
    for relay in relays:
        if relay.process.poll() is not None or monotonic() > deadline:
            raise Unbelievable(f"a relay has ended, or not {what} in time:\n{relay.words}")
