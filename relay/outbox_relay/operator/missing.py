"""A message that was confirmed and that no run has finished, and how the outbox is asked for those.

The inbox says of ids which are unfinished; the outbox says which of these are missing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
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
    outbox: Session,
    unfinished: Sequence[Unfinished],
    watched: Sequence[Watched],
    until: datetime,
    ahead: timedelta,
) -> list[Missing]:
    """Those of them that were confirmed before that, and are not to be sent again by now.

    The inbox' clock is so much `ahead` of the outbox'.
    """
    if not unfinished:
        return []
    found = [{**asdict(each), "heard_at": _heard(each, ahead)} for each in unfinished]
    missing = {"found": _json(found), "watched": _json(list(map(asdict, watched)))}
    return outbox.fetch(Missing, queries.MISSING, until=until, **missing)


def _heard(unfinished: Unfinished, ahead: timedelta) -> datetime | None:
    return unfinished.noted_at - ahead if unfinished.noted_at else None


def _json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(rows, default=str)
