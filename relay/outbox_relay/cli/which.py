"""Which outbox a command is for, where OUTBOX_DATABASES_FILE names many: `--outbox`, or all."""

from argparse import ArgumentParser, Namespace
from typing import Final

from outbox_relay.cli.command import Command
from outbox_relay.errors import SettingsError
from outbox_relay.many.roster import Roster
from outbox_relay.settings import Settings
from outbox_relay.settings.table import DATABASES_FILE

ALL: Final = "without it, all"
ONE: Final = "this command is for one"


def add_outbox(parser: ArgumentParser, command: Command) -> None:
    """Let the parser take `--outbox` for commands that know databases."""
    if DATABASES_FILE in command.settings:
        parser.add_argument(
            "--outbox",
            metavar="NAME",
            help=f"an outbox of OUTBOX_DATABASES_FILE: {ALL if command.run_many else ONE}",
        )


def one_or_many(command: Command, arguments: Namespace, settings: Settings) -> int:
    """Run the command for the outbox it is meant for, or for all; its exit code."""
    name: str | None = getattr(arguments, "outbox", None)
    if settings.databases_file is None:
        if name is not None:
            raise SettingsError(
                f"--outbox={name!r} is for one of many: {DATABASES_FILE.name} is not set"
            )
        return command.run(arguments, settings)
    if name is not None:
        roster = Roster(settings, need_broker=command.need_broker)
        return command.run(arguments, roster.named(name).settings)
    if command.run_many is None:
        raise SettingsError(
            f"{command.name} is for one outbox of {DATABASES_FILE.name}: name it with --outbox; "
            "outbox-relay status shows them all"
        )
    return command.run_many(arguments, settings)
