"""Shows what was measured: on the terminal, as JSON with every single value, and in the docs.

Medians, and the lowest and highest value beside them; nothing is left out because it looks bad.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.figures import UNITS, Figures
from bench.goals import Verdict, verdicts

BEGIN: Final = "<!-- measured: written by `make bench`, do not edit -->"
END: Final = "<!-- end of measured -->"

RATE_COSTS: Final = ("sender", "postgres", "broker", "wal", "others")
RATE_HEADS: Final = (
    *("experiment", "messages/s", "lowest", "highest"),
    *("sender µs", "Postgres µs", "broker µs", "WAL B", "others, cores"),
)
SINGLE: Final = ("/p50", "/p99", "/share", "/size")
SINGLE_HEADS: Final = ("experiment", "figure", "median", "lowest", "highest")


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


def read_figures(file: Path) -> Figures:
    """Every value of every round, as `write_json` kept them."""
    return Figures(json.loads(file.read_text())["rounds"])


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
    rates = [name for name in report.figures.names() if name.endswith("/rate")]
    yield "Rates and costs", RATE_HEADS, [_rate(report.figures, name) for name in rates]
    others = [name for name in report.figures.names() if name.endswith(SINGLE)]
    yield (
        "Latency, idling and sizes",
        SINGLE_HEADS,
        [_single(report.figures, each) for each in others],
    )
    if report.failures:
        yield "Not measured", ("experiment",), [(failure,) for failure in report.failures]


def _goal(verdict: Verdict) -> tuple[str, ...]:
    goal = verdict.goal
    return goal.what, goal.wanted, verdict.measured, "met" if verdict.met else "short"


def _rate(figures: Figures, name: str) -> tuple[str, ...]:
    experiment = name.removesuffix("/rate")
    costs = (figures.median(f"{experiment}/{what}") for what in RATE_COSTS)
    shown = ("" if cost is None else _number(cost) for cost in costs)
    return experiment, *_spread(figures, name), *shown


def _single(figures: Figures, name: str) -> tuple[str, ...]:
    experiment, _, what = name.rpartition("/")
    return experiment, f"{what}, {UNITS[what]}", *_spread(figures, name)


def _spread(figures: Figures, name: str) -> tuple[str, str, str]:
    """Median, lowest and highest."""
    values = figures.values(name)
    return _number(median(values)), _number(min(values)), _number(max(values))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
