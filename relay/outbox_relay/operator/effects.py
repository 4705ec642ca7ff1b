"""Looks after messages that were confirmed, round by round: how long they took, what is missing.

Each round goes on where the last one stopped, and takes no longer than its budget, so that the cost
does not depend on how much there is. One relay of an outbox does so at a time, under a lock of its
session: what several counted would be counted several times.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final

from outbox_relay.core.effects import Seen
from outbox_relay.errors import RelayError, SchemaError
from outbox_relay.operator import queries
from outbox_relay.operator.audit import NO_INBOX, Found, locate
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.missing import Inquiry, Missing, missing_of, portions
from outbox_relay.operator.session import Session
from outbox_relay.postgres.database import connect, current_url
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay effects"
#: Seconds that a round may take, give or take a portion.
BUDGET: Final = 0.15
#: What was confirmed less long ago, in seconds, may be at work.
OLDER_THAN: Final = 300.0
#: Receipts are committed a moment after the time they bear: seconds.
SETTLED: Final = 5.0
#: Of so many tasks that ended, the newest, a round counts how long they took.
MAX_EXECUTIONS: Final = 1_000
#: So many missing messages, and those of a portion, are enough to be told; no more are looked for.
MAX_MISSING: Final = 5_000
#: Queues with more messages than this are not searched by id.
MAX_SEARCHED: Final = 10_000

LOCK: Final = """
SELECT pg_try_advisory_lock(hashtextextended('effects', %(table)s::regclass::oid::bigint))
"""
ENDED: Final = """
SELECT message_id, finished_at, noted_at FROM inbox.receipt
WHERE noted_at > %(after)s AND noted_at <= %(until)s AND outcome IN ('succeeded', 'failed')
  AND finished_at IS NOT NULL
ORDER BY noted_at DESC LIMIT %(limit)s
"""
#: A task that was retried has several rows under its id: it was committed with the first.
EXECUTIONS: Final = """
SELECT greatest(0, extract(epoch FROM
           ended.at - greatest(first.created_at, first.available_at)))::float8 AS seconds
FROM unnest(%(message_ids)s::text[], %(times)s::timestamptz[]) AS ended (message_id, at),
     LATERAL (SELECT m.created_at, m.available_at FROM {outbox}.message m
               WHERE m.message_id = ended.message_id ORDER BY m.id + 0 LIMIT 1) first
WHERE isfinite(first.created_at)
"""


@dataclass(frozen=True, slots=True)
class _Ended:
    message_id: str
    finished_at: datetime
    noted_at: datetime


@dataclass(frozen=True, slots=True)
class _Execution:
    seconds: float


class Effects:
    """The rounds of one relay; `round` raises a RelayError, and may be called again after it."""

    def __init__(
        self, settings: Settings, *, budget: float = BUDGET, older_than: float = OLDER_THAN
    ) -> None:
        self._settings, self._budget, self._older_than = settings, budget, older_than
        self._outbox: Session | None = None
        self._noted: datetime | None = None  # by the inbox' clock: ends told of so far
        self._confirmed: datetime | None = None  # by the outbox': confirms looked at so far
        self._missing: list[Missing] = []

    def round(self) -> Seen | None:
        """Look on; None where another relay does so, or no worker leaves receipts."""
        try:
            outbox = self._outbox or self._take_over()
            if outbox is None:
                return None
            with inbox_of(outbox, self._settings, NAME) as inbox:
                return self._look(outbox, inbox)
        except RelayError:
            self.close()
            raise

    def close(self) -> None:
        """Let another relay look on: it counts what ends from now on."""
        self.rest()
        self._noted = None

    def rest(self) -> None:
        """Keep no connection until the next round, which goes on where this one has stopped.

        Of what another relay counts meanwhile it knows nothing.
        """
        if self._outbox is not None:
            with suppress(RelayError):
                self._outbox.connection.close()
        self._outbox = None

    def _take_over(self) -> Session | None:
        connection = connect(current_url(self._settings), NAME, self._settings.statement_timeout)
        session = Session(connection, self._settings.schema)
        if not session.value(LOCK, table=f'"{session.schema}".ready'):
            connection.close()
            return None
        self._outbox = session
        return session

    def _look(self, outbox: Session, inbox: Session) -> Seen | None:
        if not inbox.value(queries.HAS_RECEIPTS):
            raise SchemaError(NO_INBOX)
        now = outbox.value(queries.NOW)
        until = now - timedelta(seconds=self._older_than)
        inquiry = Inquiry(until, self._next_confirm()).of(outbox, inbox)
        if not inquiry.watched:
            return None
        executions = self._ended(outbox, inbox, now, inquiry.ahead)
        self._walk(outbox, inbox, inquiry)
        found = Found(0, self._missing, inbox.value(queries.NOW), inquiry)
        places = Counter(
            where.place for _, where in locate(self._settings, found, most=MAX_SEARCHED)
        )
        unchecked = (now - (self._confirmed or until)).total_seconds()
        return Seen(executions, places, unchecked)

    def _next_confirm(self) -> datetime | None:
        """Since when what was confirmed has not been looked at; None before the first round."""
        return self._confirmed and self._confirmed + timedelta(microseconds=1)

    def _ended(
        self, outbox: Session, inbox: Session, now: datetime, ahead: timedelta
    ) -> list[float]:
        """How long the tasks took that ended since the last round; at the first, of none."""
        until = now + ahead - timedelta(seconds=SETTLED)
        after, self._noted = self._noted, until
        if after is None:
            return []
        ended = inbox.fetch(_Ended, ENDED, after=after, until=until, limit=MAX_EXECUTIONS)
        if not ended:
            return []
        found = outbox.fetch(
            _Execution,
            EXECUTIONS,
            message_ids=[each.message_id for each in ended],
            times=[each.finished_at - ahead for each in ended],
        )
        return [each.seconds for each in found]

    def _walk(self, outbox: Session, inbox: Session, inquiry: Inquiry) -> None:
        """Look again at what was missing, and on at what was confirmed, within the budget."""
        give_up = monotonic() + self._budget
        before = [each.message_id for each in self._missing]
        self._missing = missing_of(outbox, inbox, inquiry, before)
        if len(self._missing) >= MAX_MISSING:
            return
        for portion in portions(outbox, inquiry):
            self._missing += missing_of(outbox, inbox, inquiry, portion.message_ids)
            self._confirmed = portion.last
            if monotonic() > give_up or len(self._missing) >= MAX_MISSING:
                return
        self._confirmed = inquiry.until
