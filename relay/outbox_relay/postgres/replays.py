"""Which messages were confirmed before they were claimed, for traces: they are replayed.

On a connection of its own, opened when it is first asked and kept.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final

from outbox_relay.errors import RelayError
from outbox_relay.postgres.database import BoundedConnection, connect, current_url, translated
from outbox_relay.postgres.statement import Statement
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay replays"
#: At most so many are asked for at a time.
PORTION: Final = 500
#: After a failure nothing is asked for so long, in seconds.
PAUSE: Final = 5.0

#: By receipts that were written before the claim, which the relay made so many seconds ago. OFFSET
#: 0: a look-up for each message by the index of spans, and no walk through that of times.
SENT_BEFORE: Final = Statement(
    "sent_before",
    """
SELECT c.id, date_part('epoch', clock_timestamp() - r.sent_at)
FROM unnest(%(ids)s::bigint[], %(slots)s::smallint[], %(ages)s::float8[]) AS c (id, slot, age),
LATERAL (SELECT sent_at FROM {outbox}.receipt
         WHERE span @> c.id AND slot = c.slot AND c.id = ANY (ids) OFFSET 0) r
WHERE r.sent_at < clock_timestamp() - c.age * interval '1 second'
""",
)


class Replays:
    """Tells when messages were last confirmed; a callable."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._statement = SENT_BEFORE.in_schema(settings.schema).text
        self._connection: BoundedConnection | None = None
        self._not_before = 0.0

    def __call__(self, claimed: Sequence[tuple[int, int, float]]) -> dict[int, float]:
        """Of (id, slot, when it was claimed): when it was confirmed before, on the monotonic clock.

        Raises RelayError where the database cannot be asked.
        """
        if monotonic() < self._not_before:
            return {}
        found: dict[int, float] = {}
        try:
            for begin in range(0, len(claimed), PORTION):
                found |= self._ask(claimed[begin : begin + PORTION])
        except RelayError:
            self._not_before = monotonic() + PAUSE
            self.close()
            raise
        return found

    def _ask(self, claimed: Sequence[tuple[int, int, float]]) -> dict[int, float]:
        settings = self._settings
        if self._connection is None:
            self._connection = connect(current_url(settings), NAME, settings.statement_timeout)
        now = monotonic()
        parameters = {
            "ids": [id_ for id_, _, _ in claimed],
            "slots": [slot for _, slot, _ in claimed],
            "ages": [now - at for _, _, at in claimed],
        }
        with translated():
            rows = self._connection.execute(self._statement, parameters).fetchall()
        # Asked later than `now`, by up to this: a receipt that is no older is the claim's own.
        later = monotonic() - now
        claims = {id_: at for id_, _, at in claimed}
        found: dict[int, float] = {}
        for id_, ago in rows:
            if (at := now + later - ago) < claims[id_]:
                found[id_] = max(at, found.get(id_, at))
        return found

    def close(self) -> None:
        """End the session."""
        if self._connection:
            self._connection.close()
        self._connection = None
