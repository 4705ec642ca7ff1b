"""`outbox-relay`: finds the command, reads the settings, and turns what happens into an exit code.

Exit codes: 0 done, 1 the operation found or left a problem, 2 wrong usage or settings.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from outbox_relay import logs
from outbox_relay.commands.command import Command
from outbox_relay.commands.flags import add_flags, given
from outbox_relay.errors import RelayError, SettingsError
from outbox_relay.settings import from_environment

#: The module of each command, in the order of the help.
MODULES: Final = {
    "run": "run",
    "status": "status",
    "health": "health",
    "doctor": "doctor",
    "pending": "look",
    "scheduled": "look",
    "dead": "look",
    "sent": "look",
    "show": "show",
    "retry": "steer",
    "discard": "steer",
    "replay": "replay",
    "purge": "purge",
    "bench": "bench",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error is one sentence on stderr, never a traceback."""
    given_arguments = sys.argv[1:] if argv is None else argv
    arguments = _parser(commands(given_arguments)).parse_args(given_arguments)
    command: Command = arguments.command
    try:
        settings = from_environment(
            os.environ, need_broker=command.need_broker, flags=given(arguments)
        )
        logs.configure(settings.log_format, settings.log_level)
        return command.run(arguments, settings)
    except SettingsError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 2
    except RelayError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:
        # The reader has seen enough (`| head`); what Python still wants to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def commands(arguments: Sequence[str] = ()) -> list[Command]:
    """What the arguments may mean: every command, or only those in the module of the first word.

    A daemon need not wait for what only other commands import.
    """
    chosen = MODULES.get(arguments[0]) if arguments else None
    found: list[Command] = []
    for name in [chosen] if chosen else dict.fromkeys(MODULES.values()):
        module = import_module(f"outbox_relay.commands.{name}")
        found += module.commands() if hasattr(module, "commands") else [module.command()]
    return found


def _parser(known: Sequence[Command]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="outbox-relay",
        description="Publishes a Postgres outbox, confirmed; shows, steers and diagnoses it.",
        epilog="Exit codes: 0 done, 1 found or left a problem, 2 wrong usage or settings.",
    )
    words = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in known:
        own = words.add_parser(command.name, help=command.help, description=command.help)
        own.set_defaults(command=command)
        command.arguments(own)
        add_flags(own, command.variables)
    return parser
