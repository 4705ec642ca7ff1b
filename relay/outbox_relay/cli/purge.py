"""`purge`: sent messages older than that are forgotten now; nothing unsent ever is.

The relay does the same by itself, at its leisure, for `OUTBOX_RETENTION`.
"""

from argparse import ArgumentParser, Namespace

from outbox_relay.cli.command import Command
from outbox_relay.cli.confirm import add_yes, agreed
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.values import age
from outbox_relay.operator.manage import purge
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings
from outbox_relay.settings.durations import how_long


def command() -> Command:
    """The command."""
    return Command("purge", "old sent messages are deleted", _purge, _arguments, DATABASE)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", required=True, type=age, metavar="DURATION", help="36h, 7d; 0 for all"
    )
    add_yes(parser)


def _purge(arguments: Namespace, settings: Settings) -> int:
    older = how_long(arguments.older_than)
    question = f"Delete every sent message older than {older}? It cannot be replayed any more."
    if not agreed(question, yes=arguments.yes):
        return 1
    with Session.open(settings) as session:
        total = purge(session, arguments.older_than)
    print(f"about {total} deleted")
    return 0
