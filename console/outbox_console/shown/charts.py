"""Small charts as SVG: an hour of samples in a hundred columns of pixels. Pure.

Shapes only: colours, and light or dark, are the style sheet's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from outbox_console.outbox.samples import Sample
from outbox_console.shown.words import number

WIDTH: Final = 600
HEIGHT: Final = 80
_COLUMNS: Final = 180
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: paths to draw over one another, the highest value, and a text for who cannot see."""

    title: str
    legend: list[tuple[str, str]]
    paths: list[tuple[str, str, str]]
    top: str
    text: str


def flow(samples: Sequence[Sample], now: datetime) -> Chart:
    """Committed and confirmed a second."""
    series = [
        ("committed", [(s.at, s.committed) for s in samples]),
        ("confirmed", [(s.at, s.confirmed) for s in samples]),
    ]
    return _chart("Flow, a second", series, now)


def waiting(samples: Sequence[Sample], now: datetime) -> Chart:
    """Pending, and dead."""
    series = [
        ("pending", [(s.at, float(s.pending)) for s in samples]),
        ("dead", [(s.at, float(s.dead)) for s in samples]),
    ]
    return _chart("Waiting", series, now)


def oldest(samples: Sequence[Sample], now: datetime) -> Chart:
    """For how long the oldest pending message has been due, in seconds."""
    return _chart("Oldest pending, s", [("oldest", [(s.at, s.oldest) for s in samples])], now)


def spark(counts: Sequence[int]) -> str:
    """A path of bars, in a box of 10 by 1 units for each count and 20 high."""
    top = max(counts, default=0) or 1
    bars = []
    for place, count in enumerate(counts):
        if count:
            height = max(1.5, 20 * count / top)
            bars.append(f"M{place * 10 + 1} 20h8v{-height:.1f}h-8z")
    return "".join(bars)


def _chart(
    title: str, series: Sequence[tuple[str, Sequence[tuple[datetime, float]]]], now: datetime
) -> Chart:
    columns = {name: _columns(points, now) for name, points in series}
    top = max((v for column in columns.values() for v in column if v is not None), default=0.0)
    scale = top or 1.0  # where all is 0, the line is at the bottom of a scale
    paths = [(name, _line(column, scale), _area(column, scale)) for name, column in columns.items()]
    last = [(name, points[-1][1] if points else 0.0) for name, points in series]
    legend = [(name, number(value)) for name, value in last]
    told = ", ".join(f"{name} {value}" for name, value in legend)
    text = f"{title} during the last hour. Now {told}; at most {number(top)}."
    return Chart(title, legend, paths, number(scale), text)


def _columns(points: Sequence[tuple[datetime, float]], now: datetime) -> list[float | None]:
    """The highest value in each part of the hour: a short peak is what one looks for."""
    columns: list[float | None] = [None] * _COLUMNS
    begin = now - _HOUR
    for at, value in points:
        place = int((at - begin) / _HOUR * _COLUMNS)
        if 0 <= place <= _COLUMNS:
            place = min(place, _COLUMNS - 1)
            columns[place] = max(value, columns[place] or 0.0)
    return columns


def _places(column: Sequence[float | None], top: float) -> list[tuple[float, float]]:
    step = WIDTH / (_COLUMNS - 1)
    return [
        (place * step, HEIGHT - 2 - (HEIGHT - 6) * value / top)
        for place, value in enumerate(column)
        if value is not None
    ]


def _line(column: Sequence[float | None], top: float) -> str:
    places = _places(column, top)
    if len(places) == 1:  # a point: drawn as a short line
        (x, y) = places[0]
        places = [(x - 3, y), (x, y)]
    return "".join(f"{'L' if n else 'M'}{x:.1f} {y:.1f}" for n, (x, y) in enumerate(places))


def _area(column: Sequence[float | None], top: float) -> str:
    places = _places(column, top)
    if not places:
        return ""
    line = _line(column, top)
    return f"{line}L{places[-1][0]:.1f} {HEIGHT}L{places[0][0]:.1f} {HEIGHT}z"
