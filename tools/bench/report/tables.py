"""Shows what was measured, on the terminal and in the docs.

Medians, and the lowest and highest value beside them; nothing is left out because it looks bad.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.report.figures import UNITS, Figures
from bench.report.goals import Verdict
from bench.report.results import Report, Stall

BEGIN: Final = "<!-- measured: written by `make bench`, do not edit -->"
END: Final = "<!-- end of measured -->"

RATE_COSTS: Final = ("sender", "postgres", "broker", "wal", "others")
RATE_HEADS: Final = (
    *("experiment", "messages/s", "lowest", "highest"),
    *("sender µs", "Postgres µs", "broker µs", "WAL B", "others, cores"),
)
STALL_HEADS: Final = ("experiment", "round", "seconds without a message", "messages/s with them")
SINGLE: Final = (
    *("/p50", "/p99", "/longest", "/share", "/deviation", "/size", "/number"),
    *("/written", "/lines", "/channels"),
)
SINGLE_HEADS: Final = ("experiment", "figure", "median", "lowest", "highest")


def show(report: Report, console: Console) -> None:
    """Print everything."""
    for title, heads, rows in _tables(report):
        table = Table(*heads, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


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
    if report.stalls:
        yield "Stalled, and in no figure above", STALL_HEADS, [_stall(s) for s in report.stalls]
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


def _stall(stall: Stall) -> tuple[str, ...]:
    return stall.experiment, str(stall.round + 1), _number(stall.silence), _number(stall.rate)


def _single(figures: Figures, name: str) -> tuple[str, ...]:
    experiment, _, what = name.rpartition("/")
    return experiment, f"{what}, {UNITS[what]}", *_spread(figures, name)


def _spread(figures: Figures, name: str) -> tuple[str, str, str]:
    """Median, lowest and highest."""
    values = figures.values(name)
    return _number(median(values)), _number(min(values)), _number(max(values))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
