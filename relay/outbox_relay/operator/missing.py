"""Which messages were confirmed and no run has finished: the question, and how it is asked.

The inbox says of ids which are unfinished; the outbox says which of these are missing. They may be
two databases, each with a clock of its own.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self

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
class Inquiry:
    """What is asked: of the messages that were confirmed in a time, which have no receipt.

    Its times are by the outbox' clock. Before it is put, the inbox adds what it knows: `of`.
    """

    until: datetime
    since: datetime | None = None
    task: str | None = None
    #: No message of another task can be missing.
    watched: tuple[Watched, ...] = ()
    #: By so much the inbox' clock is ahead of the outbox'.
    ahead: timedelta = timedelta()

    def of(self, outbox: Session, inbox: Session) -> Self:
        """The same, with the clocks of these two, and the tasks whose workers leave receipts."""
        ahead: timedelta = inbox.value(queries.NOW) - outbox.value(queries.NOW)
        rows = inbox.fetch(Watched, queries.WATCHED)
        watched = tuple(replace(row, since=row.since - ahead) for row in rows)
        return replace(self, watched=watched, ahead=ahead)

    @property
    def begin(self) -> datetime:
        """Since when there is anything to look at; only where a task is watched."""
        first = min(each.since for each in self.watched)
        return max(first, self.since or first)


@dataclass(frozen=True, slots=True)
class Portion:
    """Messages that were confirmed one after another; their ids are an array literal."""

    last: datetime | None
    message_ids: str | None
    messages: int


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


def portions(outbox: Session, inquiry: Inquiry) -> Iterator[Portion]:
    """What was confirmed in that time, a portion after another."""
    last: datetime | None = inquiry.begin - timedelta(microseconds=1)
    while last is not None:
        [portion] = outbox.fetch(
            Portion, queries.CONFIRMED_PORTION, after=last, until=inquiry.until, task=inquiry.task
        )
        if portion.messages:
            yield portion
        last = portion.last


def missing_of(
    outbox: Session, inbox: Session, inquiry: Inquiry, message_ids: str | Sequence[str] | None
) -> list[Missing]:
    """The messages with these ids that are missing."""
    if not message_ids:
        return []
    return among(
        outbox, inbox.fetch(Unfinished, queries.UNFINISHED, message_ids=message_ids), inquiry
    )


def among(outbox: Session, unfinished: Sequence[Unfinished], inquiry: Inquiry) -> list[Missing]:
    """Those of them that were confirmed in time, and are not to be sent again by now."""
    if not unfinished:
        return []
    found = [{**asdict(each), "heard_at": _heard(each, inquiry.ahead)} for each in unfinished]
    watched = [asdict(each) for each in inquiry.watched]
    return outbox.fetch(
        Missing, queries.MISSING, found=_json(found), watched=_json(watched), until=inquiry.until
    )


def _heard(unfinished: Unfinished, ahead: timedelta) -> datetime | None:
    return unfinished.noted_at - ahead if unfinished.noted_at else None


def _json(rows: Sequence[dict[str, Any]]) -> str:
    return json.dumps(rows, default=str)
