"""`pause` and `resume`: a queue, an exchange, a task, a pattern of these, or everything is held.

Every relay knows within two seconds. What is held waits in the database, and is nowhere counted as
refused; `routes` shows it.
"""

import sys
from argparse import ArgumentParser, Namespace

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DATABASE
from outbox_relay.cli.values import later, pattern, reason
from outbox_relay.operator import queries
from outbox_relay.operator.holds import Target, pause, resume
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


def commands() -> list[Command]:
    """The commands."""
    return [
        Command(
            "pause", "hold back a queue, an exchange, a task, or all", _pause, _arguments, DATABASE
        ),
        Command("resume", "let go on what was paused", _resume, add_target, DATABASE),
    ]


def add_target(parser: ArgumentParser) -> None:
    """Let the parser take what it is about, and why."""
    what = parser.add_mutually_exclusive_group(required=True)
    for flag, help in (
        ("--queue", "messages that go to this queue"),
        ("--exchange", "messages of this exchange"),
        ("--task", "messages of this task"),
    ):
        what.add_argument(
            flag,
            metavar="PATTERN",
            type=pattern,
            help=f"{help}; * stands for anything, ? for one letter",
        )
    what.add_argument("--all", action="store_true", help="everything")
    parser.add_argument(
        "--reason", metavar="TEXT", type=reason, default="", help="shown to others, and kept"
    )


def _arguments(parser: ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument(
        "--until",
        type=later,
        help="2h for two hours from now, or 2030-01-31T08:00:00Z; else until it is resumed",
    )


def target(arguments: Namespace) -> Target:
    """What it is about."""
    return Target(arguments.queue, arguments.exchange, arguments.task, arguments.all)


def _pause(arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        until = arguments.until and arguments.until.after(session.value(queries.NOW))
        paused = pause(session, target(arguments), arguments.reason, until)
    print(f"{paused} is paused {f'until {until.isoformat()}' if until else 'until it is resumed'}")
    return 0


def _resume(arguments: Namespace, settings: Settings) -> int:
    with Session.open(settings) as session:
        ended = resume(session, target(arguments), arguments.reason)
    print(f"{ended} resumed")
    if not ended:
        print("outbox-relay: nothing of that was paused: see outbox-relay routes", file=sys.stderr)
    return 0 if ended else 1
