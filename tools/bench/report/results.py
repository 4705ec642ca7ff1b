"""One run of the bench: its figures, stalls and failures, kept as JSON with every single value.

A round that stalled is no measurement of a rate: it is kept as a stall, and is in no figure.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from bench.report.figures import Figures
from bench.report.goals import Verdict, verdicts

#: In which no message was done, though there were more. A busy disk's longest flush is shorter, and
#: what a relay waits for a confirm that does not come is longer.
STALL_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Stall:
    """A round, the first being 0, with so many seconds of silence; its rate with them."""

    experiment: str
    round: int
    silence: float
    rate: float


@dataclass(frozen=True, slots=True)
class Report:
    """One whole run of the bench."""

    conditions: Mapping[str, str]
    figures: Figures
    stalls: list[Stall] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, round_: int, experiment: str, values: Mapping[str, float]) -> Stall | None:
        """Keep what an experiment found in a round; the stall, if it was one."""
        self.figures.forget(round_, experiment)
        self.stalls[:] = [s for s in self.stalls if (s.experiment, s.round) != (experiment, round_)]
        if (silence := values.get("silence", 0.0)) < STALL_SECONDS:
            self.figures.add(round_, experiment, values)
            return None
        stall = Stall(experiment, round_, silence, values["rate"])
        self.stalls.append(stall)
        return stall

    @property
    def verdicts(self) -> list[Verdict]:
        """The goals that were measured."""
        return verdicts(self.figures)


def write_json(report: Report, file: Path) -> None:
    """Keep every value of every round."""
    content = {
        "conditions": dict(report.conditions),
        "rounds": report.figures.rounds,
        "goals": [
            {"goal": v.goal.what, "wanted": v.goal.wanted, "measured": v.value, "met": v.met}
            for v in report.verdicts
        ],
        "stalls": [asdict(stall) for stall in report.stalls],
        "failures": report.failures,
    }
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(file: Path, conditions: Mapping[str, str]) -> Report:
    """Every value of every round and every stall, as `write_json` kept them; other conditions."""
    content = json.loads(file.read_text())
    stalls = [Stall(**stall) for stall in content.get("stalls", ())]
    return Report(conditions, Figures(content["rounds"]), stalls)
