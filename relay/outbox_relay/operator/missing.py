"""A message that was confirmed and that no run has finished, and how the outbox is asked for those.

The inbox says of ids which are unfinished; the outbox says which of these are missing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from outbox_relay.core.route import queues_of
from outbox_relay.operator import queries
from outbox_relay.operator.session import Session, Time


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the inbox knows of a message that no run has finished."""

    message_id: str
    outcome: str | None
    error: str | None
    worker: str | None
    run: int | None
    noted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Watched:
    """A task whose workers leave receipts, and since when by the outbox' clock."""

    task: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Missing:
    """A message that was confirmed and is not finished."""

    id: int
    message_id: str
    task: str
    exchange: str
    routing_key: str
    declarations: str
    created_at: Time
    sent_at: datetime
    outcome: str | None
    error: str | None
    worker: str | None
    noted_at: datetime | None
    slot: int

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues it is known to have gone to."""
        return queues_of(self.exchange, self.routing_key, self.declarations)


def among(
    outbox: Session, unfinished: Sequence[Unfinished], watched: Sequence[Watched], until: datetime
) -> list[Missing]:
    """Those of them that were confirmed before that, and are not to be sent again by now."""
    if not unfinished:
        return []
    return outbox.fetch(
        Missing, queries.MISSING, found=_json(unfinished), watched=_json(watched), until=until
    )


def _json(rows: Sequence[Any]) -> str:
    return json.dumps([asdict(row) for row in rows], default=str)
