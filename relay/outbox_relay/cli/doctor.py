"""`doctor`: the report, in which problems are easy to find; exit 1 where there is one.

Under each finding stands what to do.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

from rich.console import Console
from rich.text import Text

from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import BROKER, CHECKS, DATABASE, INBOX
from outbox_relay.cli.output import print_json
from outbox_relay.cli.wrapping import some_of, wrapped
from outbox_relay.core.finding import Finding, Level, ok
from outbox_relay.many.examination import Shared, examine_all
from outbox_relay.many.roster import Roster
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
        run_many=_doctor_many,
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _doctor(arguments: Namespace, settings: Settings) -> int:
    found = examine(settings)
    if arguments.json:
        print_json([asdict(finding) for finding in worst_last(found)])
    else:
        show(found)
    return 1 if any(finding.level is Level.PROBLEM for finding in found) else 0


def _doctor_many(arguments: Namespace, settings: Settings) -> int:
    found = examine_all(Roster(settings, need_broker=False).read())
    if arguments.json:
        print_json(
            [
                {**asdict(each.finding), "outboxes": each.outboxes}
                for each in sorted(found, key=lambda each: badness(each.finding))
            ]
        )
    else:
        show(summed_up(found))
    return 1 if any(each.finding.level is Level.PROBLEM for each in found) else 0


def summed_up(found: Sequence[Shared]) -> list[Finding]:
    """As findings with the names of their outboxes; of what is well, how many it is well with."""
    well: dict[str, set[str]] = {}
    shown = []
    for finding, names in ((each.finding, each.outboxes) for each in found):
        if finding.level is Level.OK and names:
            well.setdefault(finding.name, set()).update(names)
        else:
            text = f"{some_of(names)}: {finding.text}" if names else finding.text
            shown.append(replace(finding, text=text))
    return [*(ok(name, f"well with {len(of)} outbox(es)") for name, of in well.items()), *shown]


def badness(finding: Finding) -> int:
    """Its place among others, worst last."""
    return list(Level).index(finding.level)


def worst_last(findings: Sequence[Finding]) -> list[Finding]:
    """So that a terminal ends on what matters."""
    return sorted(findings, key=badness)


def show(findings: Sequence[Finding]) -> None:
    """Print every finding."""
    console = Console(soft_wrap=True, highlight=False) if sys.stdout.isatty() else None
    for finding in worst_last(findings):
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
