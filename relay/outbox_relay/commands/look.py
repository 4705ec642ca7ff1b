"""`pending`, `scheduled`, `dead` and `sent`: the first few messages of each, cheap on any backlog.

Payloads stay out of sight; a program gets Celery's own short rendering of the arguments.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from outbox_relay.commands import queries
from outbox_relay.commands.command import Command
from outbox_relay.commands.flags import DATABASE
from outbox_relay.commands.output import print_records, print_table
from outbox_relay.commands.session import Session
from outbox_relay.commands.values import limit
from outbox_relay.settings import Settings

DEFAULT_LIMIT: Final = 20


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
    created_at: datetime
    available_at: datetime | None
    attempts: int | None
    last_error: str | None
    sent_at: datetime | None


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
        state = ("sent_at",) if self.name == "sent" else ("available_at", "attempts", "last_error")
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
    Listing("sent", "what the broker has confirmed, newest first", queries.SENT, ("sent_at",)),
)


def commands() -> list[Command]:
    """One command for each list."""
    return [Command(x.name, x.help, partial(_list, x), _arguments, DATABASE) for x in LISTINGS]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--task", help="only messages of this task")
    parser.add_argument(
        "--limit", type=limit, default=DEFAULT_LIMIT, help=f"how many ({DEFAULT_LIMIT})"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def _list(listing: Listing, arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        entries = session.fetch(Entry, listing.query, task=arguments.task, limit=arguments.limit)
    if arguments.json:
        print_records(entries, listing.keys)
        return 0
    print_table(
        ("id", "message_id", "task", "to", *listing.columns),
        [
            (e.id, e.message_id, e.task, destination(e), *(getattr(e, c) for c in listing.columns))
            for e in entries
        ],
    )
    return 0


def destination(entry: Entry) -> str:
    """Where a message goes: a queue's name, or exchange/routing key."""
    exchange, routing_key = entry.exchange, entry.routing_key
    return f"{exchange}/{routing_key}" if exchange else routing_key
