"""Destructive commands ask first; without a terminal to ask on they insist on `--yes`."""

import sys
from argparse import ArgumentParser

from outbox_relay.cli.values import reason
from outbox_relay.errors import SettingsError


def add_yes(parser: ArgumentParser) -> None:
    """Let the parser take `--yes`."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def add_why(parser: ArgumentParser) -> None:
    """Let the parser take `--why`."""
    parser.add_argument(
        "--why", metavar="TEXT", type=reason, default="", help="kept with the action, for others"
    )


def agreed(question: str, *, yes: bool) -> bool:
    """Whether the person wants it. Raises SettingsError where nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError(f"{question} There is no terminal to ask on: confirm with --yes")
    if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
        return True
    print("nothing was changed", file=sys.stderr)
    return False
