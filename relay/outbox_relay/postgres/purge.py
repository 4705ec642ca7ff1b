"""Forgets what was sent long ago, on a connection of its own, portion by portion.

First it gives messages that have lost their work their work back. Each portion is committed: what
was done stays done, however the run ends.
"""

from contextlib import closing
from time import monotonic
from typing import Final

from outbox_relay.postgres.chores import PURGE, RESTORE_WORK
from outbox_relay.postgres.database import (
    BoundedConnection,
    connect,
    current_url,
    translated,
)
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay retention"
#: No further portion is begun after that many seconds: others may want to have a turn.
BUDGET: Final = 50.0


def tidy(settings: Settings, budget: float = BUDGET) -> tuple[int, int]:
    """How many messages have their work back, and about how many were forgotten in that time.

    Raises StoreLost, SchemaError or StatementFailed. What keeps the one from being done is no
    reason to leave the other.
    """
    url, restore = current_url(settings), RESTORE_WORK.in_schema(settings.schema).text
    with closing(connect(url, NAME, settings.statement_timeout)) as connection:
        try:
            with translated():
                row = connection.execute(restore.encode()).fetchone()
        finally:
            with translated():
                purged = _purged(connection, settings, budget)
        return int(row[0]) if row else 0, purged


def _purged(connection: BoundedConnection, settings: Settings, budget: float) -> int:
    statement = PURGE.in_schema(settings.schema).text
    total, until = 0, monotonic() + budget
    while monotonic() < until:
        row = connection.execute(statement.encode(), {"older_than": settings.retention}).fetchone()
        gone = int(row[0]) if row else 0
        total += gone
        if not gone:
            break
    return total
