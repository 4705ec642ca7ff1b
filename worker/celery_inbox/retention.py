"""Forgets inbox rows that no duplicate can reach any more, a portion a transaction."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery_inbox.errors import InboxMissing
from celery_inbox.sources import connect_by
from celery_inbox.target import Statement
from celery_inbox.targets import opened
from celery_inbox.transient import UNDEFINED_FUNCTION, UNDEFINED_SCHEMA, sqlstate

#: Twice the outbox's default retention: what is replayed from there is still recognised here.
RETENTION = timedelta(days=14)

_PURGE = "SELECT inbox.purge(%s * interval '1 second')"


def purge(connect: Any, older_than: timedelta = RETENTION) -> int:
    """Delete what was processed longer ago than `older_than`; return how many rows.

    A message that arrives again after its row is gone runs again. Keep rows for longer than the
    outbox keeps sent messages (`OUTBOX_RETENTION`), plus the longest that a message may lie in
    a queue.

    * `connect`: as for `idempotent`; asked once for each portion of 10,000 rows.
    """
    connection = connect_by(connect)
    forgotten = 0
    while portion := _purge_portion(connection, older_than):
        forgotten += portion
    return forgotten


def _purge_portion(connect: Callable[[], Any], older_than: timedelta) -> int:
    try:
        with opened(connect) as target:
            row = target.alone(Statement(_PURGE, (older_than.total_seconds(),)))
    except Exception as error:
        if sqlstate(error) in (UNDEFINED_FUNCTION, UNDEFINED_SCHEMA):
            raise InboxMissing(
                "the database has no function inbox.purge: run `outbox-migrate up` on it"
            ) from error
        raise
    return int(row[0]) if row else 0
