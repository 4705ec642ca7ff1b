"""Forgets what was sent long ago, on a connection of its own, portion by portion.

Each portion is committed: what was done stays done, however the run ends.
"""

from contextlib import closing
from time import monotonic
from typing import Final

from outbox_relay.postgres.chores import PURGE
from outbox_relay.postgres.database import connect, current_url, translated
from outbox_relay.settings import Settings

NAME: Final = "outbox-relay retention"
#: No further portion is begun after that many seconds: others may want to have a turn.
BUDGET: Final = 50.0


def purge(settings: Settings) -> int:
    """Forget what is older than the retention of the settings; returns about how many messages.

    Raises StoreLost or SchemaError.
    """
    url = current_url(settings)
    statement = PURGE.in_schema(settings.schema).text
    total, until = 0, monotonic() + BUDGET
    with (
        closing(connect(url, NAME, settings.statement_timeout)) as connection,
        translated(),
    ):
        while monotonic() < until:
            row = connection.execute(statement, {"older_than": settings.retention}).fetchone()
            gone = int(row[0]) if row else 0
            total += gone
            if not gone:
                break
    return total
