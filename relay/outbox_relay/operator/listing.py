"""The first few messages of each state, cheap on any backlog. Payloads stay out of sight.

A program gets Celery's own short rendering of the arguments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from outbox_relay.operator import queries
from outbox_relay.operator.session import Session, Time


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of one of the views."""

    id: int
    message_id: str
    task: str
    exchange: str
    routing_key: str
    args: str | None
    kwargs: str | None
    created_at: Time
    available_at: Time | None
    attempts: int | None
    last_error: str | None
    sent_at: Time | None
    expired_at: Time | None


@dataclass(frozen=True, slots=True)
class Listing:
    """One list: what it asks, and the columns it shows besides the message's own."""

    name: str
    help: str
    query: str
    columns: Sequence[str]

    @property
    def keys(self) -> Sequence[str]:
        """The keys of the JSON objects: the columns of the view of that name."""
        own = ("args", "kwargs", "created_at")
        unsent = ("available_at", "attempts", "last_error")
        ending = {"sent": ("sent_at",), "expired": (*unsent, "expired_at")}
        state = ending.get(self.name, unsent)
        return ("id", "message_id", "task", "exchange", "routing_key", *own, *state)


LISTINGS: Final = (
    Listing(
        "pending",
        "what is to be published, oldest first",
        queries.PENDING,
        ("created_at", "attempts", "last_error"),
    ),
    Listing(
        "scheduled",
        "what waits for its time, soonest first",
        queries.SCHEDULED,
        ("available_at",),
    ),
    Listing(
        "dead",
        "what was given up and why, newest first",
        queries.DEAD,
        ("created_at", "attempts", "last_error"),
    ),
    Listing(
        "expired",
        "what was over before a worker could have it, newest first",
        queries.EXPIRED,
        ("created_at", "expired_at", "attempts", "last_error"),
    ),
    Listing("sent", "what the broker has confirmed, newest first", queries.SENT, ("sent_at",)),
)


def entries(session: Session, listing: Listing, task: str | None, limit: int) -> list[Entry]:
    """The first `limit` messages of a listing, of one task if it is given."""
    return session.fetch(Entry, listing.query, task=task, limit=limit)
