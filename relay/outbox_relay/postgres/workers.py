"""What live workers say of themselves in `inbox.worker`, and messages that wait for one of them."""

from typing import Any, Final, Self

import psycopg

from outbox_relay.core.guard import NOTHING, Known
from outbox_relay.postgres.database import BoundedConnection, connect, current_url, translated
from outbox_relay.postgres.inbox import connect_elsewhere
from outbox_relay.postgres.statement import Statement
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay known tasks"
#: How many waiting messages are woken in one transaction.
PORTION: Final = 1000

#: Without an inbox in this database, or the right to read it, nothing is known.
MAY_READ_WORKERS: Final = """
SELECT coalesce((
    SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'inbox' AND c.relname = 'worker'), false)
"""
#: The same as long as the same workers are alive and say the same.
FINGERPRINT: Final = """
SELECT string_agg(node || ' ' || said_at, ',' ORDER BY node)
FROM inbox.worker WHERE alive_until > now()
"""
#: What two workers of a queue know counts together: a worker puts aside what it does not know.
LIVE: Final = """
SELECT queue, array_agg(DISTINCT task) AS tasks
FROM inbox.worker w, unnest(w.queues) queue, unnest(w.tasks) task
WHERE w.alive_until > now() GROUP BY queue
"""
#: Those that wait for a worker are found among all that wait for another attempt, from the oldest.
WAKE: Final = Statement(
    "wake_unknown",
    """
UPDATE {outbox}.parked SET available_at = now()
WHERE id = ANY (ARRAY(
    SELECT id FROM {outbox}.parked
    WHERE state NOT IN ('scheduled', 'dead') AND id > %(above)s
      AND last_error LIKE 'unknown task: %%' AND available_at > now()
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING id
""",
)


def may_read(connection: psycopg.Connection[Any]) -> bool:
    """Whether this login can see what workers say."""
    return connection.execute(MAY_READ_WORKERS).fetchone() == (True,)


def live(connection: psycopg.Connection[Any]) -> Known:
    """What the live workers know."""
    if not may_read(connection):
        return NOTHING
    return {queue: frozenset(tasks) for queue, tasks in connection.execute(LIVE)}


class Workers:
    """Sessions of outbox and inbox; every method raises StoreLost, SchemaError or StatementFailed.

    Without an `inbox` of its own, the outbox' database has it.
    """

    def __init__(
        self,
        connection: BoundedConnection,
        settings: Settings,
        inbox: BoundedConnection | None = None,
    ) -> None:
        self._connection = connection
        self._inbox = inbox or connection
        self._settings = settings

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect, the secret read anew."""
        connection = connect(current_url(settings), NAME, settings.statement_timeout)
        try:
            return cls(connection, settings, connect_elsewhere(settings, NAME))
        except BaseException:
            connection.close()
            raise

    def fingerprint(self) -> str | None:
        """What changes whenever `known` may; None where this login can see nothing."""
        with translated():
            if not may_read(self._inbox):
                return None
            row = self._inbox.execute(FINGERPRINT).fetchone()
        return str(row[0]) if row else ""

    def known(self) -> Known:
        """What the live workers know."""
        with translated():
            return live(self._inbox)

    def wake(self) -> int:
        """Have all that waits for a worker tried now, portion by portion; returns how many."""
        text = WAKE.in_schema(self._settings.schema).text
        woken, above = 0, 0
        while True:
            with translated():
                rows = self._connection.execute(text, {"above": above, "limit": PORTION}).fetchall()
            woken += len(rows)
            if len(rows) < PORTION:
                return woken
            above = max(id_ for (id_,) in rows)

    def close(self) -> None:
        """End the sessions."""
        self._inbox.close()
        self._connection.close()
