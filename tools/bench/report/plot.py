"""Draws four pictures into one file: rates, CPU per message, backlog, latency."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from bench.report.figures import Figures

mpl.use("Agg")  # no display is needed
from matplotlib import pyplot  # after the choice of what it draws with

BAR: Final = "#4878a8"
COSTS: Final = {"sender": "#4878a8", "postgres": "#d08a3c", "broker": "#b0b0b0"}
PALE: Final = "#a9c4de"
THOUSANDS: Final = "{x:,.0f}"


def draw(figures: Figures, file: Path) -> None:
    """Write a PNG."""
    figure, ((rates, costs), (backlog, latency)) = pyplot.subplots(2, 2, figsize=(15, 11))
    _rates(rates, figures)
    _costs(costs, figures)
    _backlog(backlog, figures)
    _latency(latency, figures)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def _rates(axes: Any, figures: Figures) -> None:
    names = _having(figures, "rate", ("queue", "stub", "Redis", "plain"))
    medians = [_median(figures, f"{name}/rate") for name in names]
    axes.barh(names, medians, color=BAR)
    axes.margins(x=0.15)  # room for the number behind the longest bar
    for name, value in zip(names, medians, strict=True):
        axes.text(value, name, f" {value:,.0f}", va="center", fontsize=8)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_title("messages a second")


def _costs(axes: Any, figures: Figures) -> None:
    names = _having(figures, "broker", ("queue", "stub", "Redis"))
    names = [name for name in names if "naive" not in name]
    left = [0.0] * len(names)
    for who, colour in COSTS.items():
        widths = [_median(figures, f"{name}/{who}") for name in names]
        axes.barh(names, widths, left=left, color=colour, label=who.replace("postgres", "Postgres"))
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.legend()
    axes.set_title("µs of CPU per message")


def _backlog(axes: Any, figures: Figures) -> None:
    names = _having(figures, "rate", ("backlog", "horizon", "among"))
    axes.barh(names, [_median(figures, f"{name}/rate") for name in names], color=BAR)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_title("messages a second to a broker that costs nothing")


def _latency(axes: Any, figures: Figures) -> None:
    names = _having(figures, "p50", ("latency",))
    for what, colour in (("p99", PALE), ("p50", BAR)):
        axes.barh(names, [_median(figures, f"{name}/{what}") for name in names], color=colour)
    axes.legend(["p99", "p50"])
    axes.invert_yaxis()
    axes.set_title("milliseconds from commit")


def _having(figures: Figures, what: str, words: tuple[str, ...]) -> list[str]:
    """Experiments that have a figure and are about one of the words."""
    found = [name.removesuffix(f"/{what}") for name in figures.names() if name.endswith(f"/{what}")]
    return [name for name in found if any(word in name for word in words)]


def _median(figures: Figures, name: str) -> float:
    return figures.median(name) or 0.0
