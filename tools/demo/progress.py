"""The numbers of one moment, read from the outbox's public views and the shop's tables."""

from dataclasses import dataclass

import psycopg

from demo.customers import TABLES
from shop.database import Connection

_STARTED = "SELECT clock_timestamp()"

# The views are the outbox's promise; deliveries carry the time at which a worker saw them.
_OUTBOX = "SELECT pending, scheduled, dead FROM outbox.stats"
_DEAD = "SELECT task, last_error, count(*) FROM outbox.dead WHERE created_at >= %s GROUP BY 1, 2"
_SENT = "SELECT count(*) FROM outbox.sent WHERE created_at >= %s"
_DELIVERED = (
    "SELECT count(*), count(DISTINCT (message_id, retries)) FROM shop.delivery WHERE at >= %s"
)
_EXECUTED = " UNION ALL ".join(f"SELECT count(*) FROM shop.{table}" for table in TABLES)


@dataclass(frozen=True, slots=True)
class Numbers:
    """How far things are."""

    pending: int
    scheduled: int
    dead: int
    sent: int
    executed: int
    duplicates: int


class Progress:
    """Reads the numbers of this run on a connection of its own."""

    def __init__(self, database_url: str) -> None:
        self._connection: Connection = psycopg.connect(database_url, autocommit=True)
        self.since = self._connection.execute(_STARTED).fetchall()[0][0]
        self._before = self._effects()

    def read(self) -> Numbers:
        """The numbers now."""
        pending, scheduled, dead = self._row(_OUTBOX)
        (sent,) = self._row(_SENT, self.since)
        delivered, distinct = self._row(_DELIVERED, self.since)
        executed = self._effects() - self._before
        return Numbers(pending, scheduled, dead, sent, executed, delivered - distinct)

    def dead(self) -> list[tuple[object, ...]]:
        """Task, reason and number of the messages that were given up."""
        return self._connection.execute(_DEAD, (self.since,)).fetchall()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _effects(self) -> int:
        rows = self._connection.execute(_EXECUTED.encode()).fetchall()
        return sum(int(str(count)) for (count,) in rows)

    def _row(self, statement: str, *parameters: object) -> list[int]:
        row = self._connection.execute(statement.encode(), parameters).fetchall()[0]
        return [int(str(value)) for value in row]
