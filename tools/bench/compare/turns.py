"""Runs several benches in turns, each as a process of its own, and compares what they found.

A shared machine drifts, so a round is one turn of each, and ratios are taken within a round.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: The checkout that compares.
HERE: Final = Path(__file__).resolve().parents[3]

Rounds = dict[str, list[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Side:
    """A bench: its name, the folder of its reports, whose checkout it is, and what it is told."""

    name: str
    folder: Path
    checkout: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def turn(self, names: Iterable[str]) -> list[dict[str, float]]:
        """Measure what is named like that, once; CalledProcessError where something failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        python = self.checkout / ".venv" / "bin" / "python"
        subprocess.run(
            [python, "-m", "bench", "--repeats=1", f"--folder={self.folder}", "--only", *names],
            cwd=self.checkout,
            env={**os.environ, "PYTHONPATH": str(self.checkout / "tools"), **self.environment},
            stdout=sys.stderr,
            check=True,
        )
        report = json.loads((self.folder / "results.json").read_text())
        rounds: list[dict[str, float]] = report["rounds"]
        return rounds


def compare(
    sides: Iterable[Side],
    names: Iterable[str],
    rounds: int,
    table: Callable[[Rounds], Iterable[str]],
) -> int:
    """Measure, and print the table; 1 where a turn failed, or a side could not be made."""
    try:
        found = in_turns(sides, names, rounds)
    except subprocess.CalledProcessError as failed:
        print(failed, file=sys.stderr)
        return 1
    print("\n".join(table(found)))
    return 0


def in_turns(sides: Iterable[Side], names: Iterable[str], rounds: int) -> Rounds:
    """What each side found, round by round."""
    sides, names = tuple(sides), tuple(names)
    found: Rounds = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            print(f"round {number + 1}, {side.name}", file=sys.stderr, flush=True)
            found[side.name] += side.turn(names)
    return found
