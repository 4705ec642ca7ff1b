"""Shows what was measured: on the terminal, as JSON with every single value, and in the docs.

Medians, and the lowest and highest value beside them; nothing is left out because it looks bad.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figures import UNITS, Figures
from bench.goals import Verdict, verdicts

BEGIN: Final = "<!-- measured: written by `make bench`, do not edit -->"
END: Final = "<!-- end of measured -->"


@dataclass(frozen=True, slots=True)
class Report:
    """One whole run of the bench."""

    conditions: Mapping[str, str]
    figures: Figures
    failures: list[str] = field(default_factory=list)

    @property
    def verdicts(self) -> list[Verdict]:
        """The goals that were measured."""
        return verdicts(self.figures)


def show(report: Report, console: Console) -> None:
    """Print everything."""
    for title, heads, rows in _tables(report):
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write_json(report: Report, file: Path) -> None:
    """Keep every value of every round."""
    content = {
        "conditions": dict(report.conditions),
        "rounds": report.figures.rounds,
        "goals": [
            {"goal": v.goal.what, "wanted": v.goal.wanted, "measured": v.value, "met": v.met}
            for v in report.verdicts
        ],
        "failures": report.failures,
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_page(report: Report, page: Path, plot: str) -> None:
    """Replace the measured section of a page, or add one; the rest stays as it is."""
    text = page.read_text() if page.exists() else "# Performance\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    section = "\n".join(_section(report, plot))
    page.write_text(f"{before.rstrip()}\n\n{BEGIN}\n{section}\n{END}\n{after}")


def _section(report: Report, plot: str) -> Iterator[str]:
    yield f"\n![Rates, CPU, latency and backlog]({plot})\n"
    for title, heads, rows in _tables(report):
        yield f"\n### {title}\n"
        yield _line(heads)
        yield _line(["---"] * len(heads))
        yield from map(_line, rows)
    yield ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


Rows = list[tuple[str, ...]]


def _tables(report: Report) -> Iterator[tuple[str, tuple[str, ...], Rows]]:
    yield "Conditions", ("what", "value"), list(report.conditions.items())
    yield "Goals", ("what", "goal", "measured", ""), [_goal(each) for each in report.verdicts]
    yield "Figures", ("experiment", "figure", "median", "lowest", "highest"), _rows(report.figures)
    if report.failures:
        yield "Not measured", ("experiment",), [(failure,) for failure in report.failures]


def _goal(verdict: Verdict) -> tuple[str, ...]:
    goal = verdict.goal
    return goal.what, goal.wanted, verdict.measured, "met" if verdict.met else "short"


def _rows(figures: Figures) -> Rows:
    return [_row(figures, name) for name in figures.names()]


def _row(figures: Figures, name: str) -> tuple[str, ...]:
    experiment, _, what = name.rpartition("/")
    values = figures.values(name)
    middle = figures.median(name)
    shown = (middle if middle is not None else 0.0, min(values), max(values))
    return experiment, f"{what}, {UNITS[what]}", *map(_number, shown)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
