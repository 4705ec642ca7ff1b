"""The report: problems are easy to find, and under each finding stands what to do."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.text import Text

from outbox_relay.commands.doctor.finding import Finding, Level
from outbox_relay.commands.output import print_json, printable

STYLES: Final = {Level.OK: "green", Level.WARN: "yellow", Level.PROBLEM: "bold red"}
WIDTH: Final = 9  # of the longest level, and a space


def show(findings: Sequence[Finding], *, as_json: bool) -> None:
    """Print every finding, worst last, so that a terminal ends on what matters."""
    ordered = sorted(findings, key=lambda finding: list(Level).index(finding.level))
    if as_json:
        print_json([asdict(finding) for finding in ordered])
        return
    console = Console(soft_wrap=True, highlight=False) if sys.stdout.isatty() else None
    for finding in ordered:
        head = f"{finding.level:<{WIDTH}}"
        line = f"{finding.name}: {printable(finding.text)}"
        if console:
            console.print(Text.assemble((head, STYLES[finding.level]), line))
        else:
            print(head + line)
        if finding.remedy:
            print(f"{'':<{WIDTH}}-> {printable(finding.remedy)}")
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    print(f"{problems} problem(s)" if problems else "no problem found")
