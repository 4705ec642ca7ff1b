"""`replay`: what was sent between two times is published again, under the ids it had.

With `--missing` it is exactly what `audit` would name: confirmed, and not finished by any worker.
Left alone is what somebody is known to have: a worker, or the broker in its queue.

Portion by portion, so that a large replay holds no transaction open. What is sent anew meanwhile
lies after the end of the interval: nothing is replayed twice.
"""

from argparse import ArgumentParser, Namespace
from datetime import datetime

from outbox_relay.cli.audit import add_audited, found_by
from outbox_relay.cli.command import Command
from outbox_relay.cli.confirm import add_why, add_yes, agreed
from outbox_relay.cli.flags import BROKER, DATABASE, INBOX
from outbox_relay.cli.values import Moment, moment
from outbox_relay.errors import SettingsError
from outbox_relay.operator import queries
from outbox_relay.operator.audit import locate, send_again
from outbox_relay.operator.manage import replay
from outbox_relay.operator.session import Session
from outbox_relay.operator.text import printable
from outbox_relay.settings import Settings


def command() -> Command:
    """The command."""
    flags = (*DATABASE, INBOX, *BROKER)
    return Command("replay", "sent messages are published again", _run, _arguments, flags)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--since",
        type=moment,
        help="2h for two hours ago, or 2030-01-31T08:00:00Z (UTC where no offset is given)",
    )
    parser.add_argument("--until", type=moment, default=Moment(), help="the same (now)")
    parser.add_argument("--task", metavar="NAME", help="only messages of this task")
    parser.add_argument(
        "--missing", action="store_true", help="only what no worker has finished, as audit has it"
    )
    parser.add_argument(
        "--also-held",
        action="store_true",
        help="with --missing, also what a worker says it holds, or the broker is known to have",
    )
    add_audited(parser)
    add_why(parser)
    add_yes(parser)


def _run(arguments: Namespace, settings: Settings) -> int:
    if arguments.missing:
        if arguments.until != Moment():
            raise SettingsError("--until is not for --missing: use --older-than")
        return _replay_missing(arguments, settings)
    if arguments.since is None:
        raise SettingsError("replay needs --since, or --missing")
    return _replay(arguments, settings)


def _replay_missing(arguments: Namespace, settings: Settings) -> int:
    found = found_by(arguments, settings)
    if not found.missing:
        print("nothing is missing")
        return 0
    wanted = [
        missing
        for missing, where in locate(settings, found)
        if arguments.also_held or not where.is_kept
    ]
    if kept := len(found.missing) - len(wanted):
        print(
            f"{kept:,} left alone: a worker holds them, or the broker has them; "
            "--also-held sends these too"
        )
    if not wanted:
        return 0
    question = (
        f"Publish again {len(wanted):,} messages that no worker has finished? What a worker has "
        "not told of yet, or a queue still has, is received a second time."
    )
    if not agreed(question, yes=arguments.yes):
        return 1
    pending = send_again(settings, found, wanted, arguments.why, held=arguments.also_held)
    if late := len(wanted) - pending:
        print(f"{late:,} left alone: they have ended since, are held, or were sent again already")
    print(f"{pending} pending again")
    return 0


def _replay(arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        now: datetime = session.value(queries.NOW)
        since = arguments.since.before(now)
        until = min(arguments.until.before(now), now)
        if since >= until:
            raise SettingsError(
                f"--since={printable(since)} is not before --until={printable(until)}"
            )
        confirmed = session.value(queries.CONFIRMED, since=since, until=until)
        which = f"those of {arguments.task!r} among " if arguments.task else ""
        # Some may have been forgotten since, or be counted twice, having been replayed before.
        question = (
            f"Publish again {which}up to {confirmed:,} messages sent between {printable(since)} "
            f"and {printable(until)}? Workers receive them a second time."
        )
        if not agreed(question, yes=arguments.yes):
            return 1
        print(f"{replay(session, since, until, arguments.task, arguments.why)} pending again")
    return 0
