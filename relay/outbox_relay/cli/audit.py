"""`audit`: what was confirmed and no worker has finished, and where it most likely is."""

from argparse import ArgumentParser, Namespace
from datetime import datetime, timedelta
from typing import Any, Final

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import BROKER, DATABASE, INBOX
from outbox_relay.cli.output import print_json, print_table
from outbox_relay.cli.values import age, moment
from outbox_relay.core.place import Whereabouts
from outbox_relay.operator import queries
from outbox_relay.operator.audit import Found, find, locate
from outbox_relay.operator.missing import Inquiry, Missing
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

COLUMNS: Final = ("message_id", "task", "queue", "sent_at", "place", "certain", "reason")
#: A message that was confirmed just now has had no time to run.
OLDER_THAN: Final = "5m"


def command() -> Command:
    """The command."""
    return Command(
        "audit",
        "what was confirmed and no worker has finished, and where it is",
        _audit,
        _arguments,
        (*DATABASE, INBOX, *BROKER),
    )


def add_audited(parser: ArgumentParser) -> None:
    """What says which messages are looked at."""
    parser.add_argument(
        "--older-than",
        type=age,
        default=age(OLDER_THAN),
        help=f"only what was confirmed so long ago ({OLDER_THAN})",
    )


def found_by(arguments: Namespace, settings: Settings) -> Found:
    """What is missing, of what was asked for."""
    with Session.open(settings) as session:
        now: datetime = session.value(queries.NOW)
    until = now - timedelta(seconds=arguments.older_than)
    since = arguments.since.before(now) if arguments.since is not None else None
    return find(settings, Inquiry(until, since, arguments.task))


def _arguments(parser: ArgumentParser) -> None:
    add_audited(parser)
    parser.add_argument(
        "--since", type=moment, help="only what was confirmed since: 2h, or 2030-01-31T08:00:00Z"
    )
    parser.add_argument("--task", metavar="NAME", help="only messages of this task")
    parser.add_argument("--json", action="store_true", help="for programs")


def _audit(arguments: Namespace, settings: Settings) -> int:
    found = found_by(arguments, settings)
    records = [_record(each, where) for each, where in locate(settings, found)]
    if arguments.json:
        print_json({"checked": found.checked, "missing": records})
    else:
        if records:
            print_table(COLUMNS, [[record[column] for column in COLUMNS] for record in records])
        print(f"{found.checked:,} confirmed messages checked, {len(records):,} missing")
    return 1 if records else 0


def _record(missing: Missing, where: Whereabouts) -> dict[str, Any]:
    return {
        "message_id": missing.message_id,
        "task": missing.task,
        "queue": ", ".join(missing.queues) or missing.routing_key,
        "sent_at": missing.sent_at,
        "place": str(where.place),
        "certain": where.certain,
        "reason": where.reason,
    }
