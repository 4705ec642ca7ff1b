"""`doctor`: the report, in which problems are easy to find; exit 1 where there is one.

Under each finding stands what to do.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.text import Text

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import BROKER, CHECKS, DATABASE, INBOX
from outbox_relay.cli.output import print_json
from outbox_relay.cli.wrapping import wrapped
from outbox_relay.core.finding import Finding, Level
from outbox_relay.operator.doctor import examine
from outbox_relay.operator.text import printable
from outbox_relay.settings import Settings

STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.PROBLEM: "bold red"}
WIDTH: Final = 9  # of the longest level, and a space


def command() -> Command:
    """The command."""
    return Command(
        "doctor",
        "what is wrong, and what to do about it",
        _doctor,
        _arguments,
        (*DATABASE, INBOX, *BROKER, *CHECKS),
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _doctor(arguments: Namespace, settings: Settings) -> int:
    found = examine(settings)
    _show(found, as_json=arguments.json)
    return 1 if any(finding.level is Level.PROBLEM for finding in found) else 0


def _show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print every finding, worst last, so that a terminal ends on what matters."""
    ordered = sorted(findings, key=lambda finding: list(Level).index(finding.level))
    if as_json:
        print_json([asdict(finding) for finding in ordered])
        return
    console = Console(soft_wrap=True, highlight=False) if sys.stdout.isatty() else None
    for finding in ordered:
        head = f"{finding.level:<{WIDTH}}"
        line = f"{finding.name}: {printable(finding.text)}"
        remedy = f"{'':<{WIDTH}}-> {printable(finding.remedy)}" if finding.remedy else ""
        if console:
            fitted = wrapped(head + line, console.width, WIDTH)[WIDTH:]
            console.print(Text.assemble((head, STYLES[finding.level]), fitted))
            remedy = wrapped(remedy, console.width, WIDTH + len("-> "))
        else:
            print(head + line)
        if remedy:
            print(remedy)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    print(f"{problems} problem(s)" if problems else "no problem found")
