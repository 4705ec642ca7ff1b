"""`pending`, `scheduled`, `dead`, `expired`, `sent`: the first few messages of each, always cheap.

Payloads stay out of sight; a program gets Celery's own short rendering of the arguments.
"""

from argparse import ArgumentParser, Namespace
from functools import partial
from typing import Final

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.output import print_records, print_table
from outbox_relay.cli.values import limit
from outbox_relay.operator.listing import LISTINGS, Entry, Listing, entries
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

DEFAULT_LIMIT: Final = 20


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
        found = entries(session, listing, arguments.task, arguments.limit)
    if arguments.json:
        print_records(found, listing.keys)
        return 0
    print_table(
        ("id", "message_id", "task", "to", *listing.columns),
        [
            (e.id, e.message_id, e.task, destination(e), *(getattr(e, c) for c in listing.columns))
            for e in found
        ],
    )
    return 0


def destination(entry: Entry) -> str:
    """Where a message goes: a queue's name, or exchange/routing key."""
    exchange, routing_key = entry.exchange, entry.routing_key
    return f"{exchange}/{routing_key}" if exchange else routing_key
