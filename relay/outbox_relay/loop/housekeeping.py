"""The chores beside publishing: promote what is due; have others count, and forget what is old.

Only what has to be known before the next claim is done here, with the connection of the claims: to
promote. What is merely shown, and what can wait, has connections and threads of its own. None of
it keeps a claim from happening: a chore that fails is logged and tried again when it is due the
next time, and a row that it fails over is set apart. Only a database that is gone is more. One that
takes long, among dead rows by the million say, comes so seldom that a tenth of the time is enough.
"""

from time import monotonic
from typing import Final

import structlog

from outbox_relay.core.budget import Budget
from outbox_relay.core.portion import Portion
from outbox_relay.errors import SchemaError, StatementFailed
from outbox_relay.loop.counting import Counting
from outbox_relay.loop.incidents import ChoreFailures
from outbox_relay.loop.retention import Retention
from outbox_relay.postgres.store import Store

log = structlog.get_logger()

#: How often parked messages that have become due are promoted, in seconds.
PROMOTE_EVERY: Final = 0.2
#: How many are promoted at a time, at least and at most, so that none of a million that are due at
#: one moment holds up a claim for long; if as many as that are, there may be more.
MIN_PROMOTED: Final = 200
MAX_PROMOTED: Final = 1000


class Housekeeping:
    """Remembers when each chore was last done; `now` is in monotonic seconds."""

    def __init__(self, retention: Retention, counting: Counting | None = None) -> None:
        self._retention, self._counting = retention, counting
        self._promotions = Budget(PROMOTE_EVERY)
        self._portion = Portion(MIN_PROMOTED, MAX_PROMOTED)
        self._failures = ChoreFailures()

    def do(self, store: Store, now: float) -> None:
        """Do what is due, or have it done."""
        if self._promotions.is_due(now):
            try:
                self._promote(store)
            except (StatementFailed, SchemaError) as error:
                self._failures.note("promote", str(error), now)
        if self._counting is not None:
            self._counting.begin_if_due(now)
        self._retention.begin_if_due(now)

    def promote_soon(self) -> None:
        """Promote with the next chores: something is due."""
        self._promotions.soon()

    def count_soon(self) -> None:
        """Count with the next chores: the database is back."""
        if self._counting is not None:
            self._counting.soon()

    def close(self) -> None:
        """Wait for nothing that others do."""
        if self._counting is not None:
            self._counting.close()

    def _promote(self, store: Store) -> None:
        """Promote a portion of what is due."""
        began, more = monotonic(), True
        try:
            more = self._promote_some(store, self._portion.size)
        finally:
            self._promotions.took(took := monotonic() - began)
            if more:
                self._portion.took(took)
        if more:
            self._promotions.more()

    def _promote_some(self, store: Store, limit: int) -> bool:
        """Promote at most so many; whether there may be more. A row that cannot be is set apart."""
        while True:
            try:
                return store.promote(limit) == limit
            except StatementFailed as error:
                if not error.row_fault:
                    raise
                if limit == 1:
                    log.error("message_set_apart", message_id=store.set_apart(str(error)))
                    return False
                limit = max(1, limit // 4)
