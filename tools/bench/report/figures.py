"""What was measured: values by name, one per round, compared within rounds only.

A shared machine drifts by tens of per cent in an hour. So what is compared takes turns, a ratio is
taken inside each round, and the median of these ratios is what is reported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Final

#: What the last part of a figure's name says it is measured in.
UNITS: Final = {
    "rate": "/s",
    "sender": "µs",
    "postgres": "µs",
    "broker": "µs",
    "wal": "B",
    "silence": "s",
    "p50": "ms",
    "p99": "ms",
    "longest": "ms",
    "share": "%",
    "deviation": "%",
    "size": "MB",
    "written": "kB/s",
    "lines": "/min",
    "channels": "/min",
    "others": "cores",
    "number": "",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Rounds of values; a name is `experiment/what`."""

    rounds: list[dict[str, float]] = field(default_factory=list)

    def add(self, round_: int, experiment: str, values: Mapping[str, float]) -> None:
        """Keep what an experiment found in a round, the first being 0."""
        for what, value in values.items():
            self._round(round_)[f"{experiment}/{what}"] = value

    def forget(self, round_: int, experiment: str) -> None:
        """Drop what an experiment found in a round, such as one of an earlier run."""
        for name in [n for n in self._round(round_) if n.rpartition("/")[0] == experiment]:
            del self.rounds[round_][name]

    def names(self) -> Iterator[str]:
        """Every figure there is, in the order in which they were first found."""
        yield from dict.fromkeys(name for round_ in self.rounds for name in round_)

    def values(self, name: str) -> list[float]:
        """Every value of a figure."""
        return [round_[name] for round_ in self.rounds if name in round_]

    def median(self, name: str) -> float | None:
        """The median of a figure; None where it was not measured."""
        values = self.values(name)
        return median(values) if values else None

    def ratio(self, name: str, to: str) -> float | None:
        """The median of the ratios within rounds; None where no round has both."""
        ratios = [r[name] / r[to] for r in self.rounds if name in r and r.get(to)]
        return median(ratios) if ratios else None

    def _round(self, number: int) -> dict[str, float]:
        while len(self.rounds) <= number:
            self.rounds.append({})
        return self.rounds[number]
