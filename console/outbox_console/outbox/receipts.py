"""What workers have told of messages (`inbox.receipt`), where this database has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from outbox_console.postgres.database import Session

KNOWN: Final = """
SELECT coalesce(has_schema_privilege(to_regnamespace('inbox'), 'USAGE')
            AND has_table_privilege(to_regclass('inbox.receipt'), 'SELECT')
            AND has_table_privilege(to_regclass('inbox.watched'), 'SELECT'), false)
"""
#: That there is no receipt means something only where workers leave any.
LEFT: Final = "SELECT EXISTS (SELECT FROM inbox.watched)"
OF: Final = """
SELECT message_id, outcome, error, run %% 1000000 AS retries, worker, received_at, finished_at
  FROM inbox.receipt WHERE message_id = ANY (%(ids)s)
"""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How the work on a message ended, or where it stands."""

    message_id: str
    outcome: str
    error: str | None
    retries: int
    worker: str | None
    received_at: datetime | None
    finished_at: datetime | None


async def known(session: Session) -> bool:
    """Whether workers leave receipts, and this person may see them."""
    return bool(await session.value(KNOWN)) and bool(await session.value(LEFT))


async def of(session: Session, message_ids: Sequence[str]) -> dict[str, Receipt] | None:
    """Those of some messages, by their ids; None where nothing can be known."""
    if not await known(session):
        return None
    found = await session.fetch(Receipt, OF, ids=list(message_ids))
    return {receipt.message_id: receipt for receipt in found}
