"""What Postgres tells of itself: its clock, how many transactions it had, what it wrote."""

from datetime import datetime
from typing import Final

from bench.lab import Lab

NOW: Final = "SELECT clock_timestamp()"
#: Those of idle sessions are counted a second late, and the question by the next one.
TRANSACTIONS: Final = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""
POSITION: Final = "SELECT pg_current_wal_insert_lsn()"
WAL_SINCE: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)::bigint"


def now(lab: Lab) -> datetime:
    """The time by its clock."""
    at: datetime = lab.value(NOW)
    return at


def transactions(lab: Lab) -> int:
    """How many there were in the lab's database so far, whatever became of them."""
    return int(lab.value(TRANSACTIONS))


def position(lab: Lab) -> str:
    """Where its write-ahead log ends."""
    return str(lab.value(POSITION))


def wal_since(lab: Lab, position: str) -> int:
    """How many bytes it has written ahead since then."""
    return int(lab.value(WAL_SINCE, position))
