"""`outbox-relay`: finds the command, reads the settings, and turns what happens into an exit code.

Exit codes: 0 done, 1 the operation found or left a problem, 2 wrong usage or settings.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

import outbox_relay
from outbox_relay.cli import (
    audit,
    bench,
    doctor,
    health,
    listings,
    manage,
    pause,
    purge,
    rate,
    replay,
    routes,
    run,
    show,
    status,
)
from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import add_flags, given
from outbox_relay.cli.which import add_outbox, one_or_many
from outbox_relay.configuration import from_environment
from outbox_relay.errors import RelayError, SettingsError
from outbox_relay.observe import logs

COMMANDS: Final[Sequence[Command]] = (
    run.command(),
    status.command(),
    health.command(),
    doctor.command(),
    *listings.commands(),
    show.command(),
    audit.command(),
    *manage.commands(),
    *pause.commands(),
    rate.command(),
    routes.command(),
    replay.command(),
    purge.command(),
    bench.command(),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error is one sentence on stderr, never a traceback."""
    arguments = _parser().parse_args(argv)
    command: Command = arguments.command
    try:
        settings = from_environment(
            os.environ, need_broker=command.need_broker, flags=given(arguments)
        )
        logs.configure(settings.log_format, settings.log_level)
        return one_or_many(command, arguments, settings)
    except SettingsError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 2
    except RelayError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # The reader has closed the pipe (`| head`); what Python still flushes goes to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Version(argparse.Action):
    """Looks the version up when it is asked for: every health probe makes this parser."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(parser.prog, outbox_relay.__version__)
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="outbox-relay",
        description="Publishes a Postgres outbox, confirmed; shows, manages and diagnoses it.",
        epilog="Exit codes: 0 done, 1 found or left a problem, 2 wrong usage or settings.",
    )
    parser.add_argument(
        *("-V", "--version"), action=_Version, nargs=0, help="show the version and end"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(command.name, help=command.help, description=command.help)
        own.set_defaults(command=command)
        command.arguments(own)
        add_outbox(own, command)
        add_flags(own, command.settings)
    return parser
