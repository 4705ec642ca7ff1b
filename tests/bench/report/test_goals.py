"""Goals name what is measured by its words: nothing else ties them to the experiments."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bench.experiments import Brokers, catalogue
from bench.report.figures import UNITS, Figures
from bench.report.goals import GOALS
from bench.scale import FULL, QUICK


@dataclass(frozen=True, slots=True)
class Asked(Figures):
    """Has no values, and notes which figures goals ask for."""

    asked: set[str] = field(default_factory=set)

    def median(self, name: str) -> None:
        """Note it."""
        self.asked.add(name)

    def ratio(self, name: str, to: str) -> None:
        """Note both."""
        self.asked.update((name, to))


def asked() -> Iterator[tuple[str, str]]:
    """The experiments that goals are about, or their parts, and what of these."""
    figures = Asked()
    for goal in GOALS:
        goal.verdict(figures)
    for name in figures.asked:
        experiment, _, what = name.rpartition("/")
        yield experiment, what


def test_every_goal_is_about_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A goal whose experiment has another name by now would never be missed."""
    monkeypatch.setenv("PEERS", "1")
    names = {each.name for scale in (QUICK, FULL) for each in catalogue(scale, Brokers())}

    found = list(asked())

    assert found
    for experiment, what in found:
        assert experiment in names or any(experiment.startswith(f"{name}, ") for name in names)
        assert what in UNITS
