"""A round in which nothing went on is reported as a stall, and is in no median."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.report.figures import Figures
from bench.report.results import STALL_SECONDS, Report, read_json, write_json
from bench.report.tables import show, write_page

NAME = "stub broker, 1 process"
GOOD = {"rate": 100_000.0, "sender": 8.0, "silence": 0.1}
STALLED = {"rate": 4_771.0, "sender": 9.0, "silence": 20.0}


def report(*rounds: dict[str, float]) -> Report:
    """What is kept of the rounds of one experiment."""
    found = Report({"machine": "a test"}, Figures())
    for number, values in enumerate(rounds):
        found.add(number, NAME, values)
    return found


def printed(found: Report) -> str:
    """What the terminal shows."""
    console = Console(width=200)
    with console.capture() as capture:
        show(found, console)
    return capture.get()


def test_a_stalled_round_is_in_no_median() -> None:
    """Neither a rate nor a cost of it; the stall itself says what the rate was."""
    found = report(GOOD, STALLED, {**GOOD, "rate": 90_000.0})

    assert found.figures.values(f"{NAME}/rate") == [100_000, 90_000]
    assert found.figures.values(f"{NAME}/sender") == [8, 8]
    assert [(s.round, s.silence, s.rate) for s in found.stalls] == [(1, 20, 4_771)]


def test_a_stall_is_shown_everywhere(tmp_path: Path) -> None:
    """On the terminal, in the file and on the page, even if no round was without one."""
    found = report(STALLED)
    write_json(found, tmp_path / "results.json")
    write_page(found, tmp_path / "page.md", "plot.png")

    assert "Stalled" in printed(found)
    assert "4,771" in printed(found)
    assert f"| {NAME} | 1 | 20.0 | 4,771 |" in (tmp_path / "page.md").read_text()
    kept: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())
    assert [stall["experiment"] for stall in kept["stalls"]] == [NAME]


def test_without_a_stall_none_is_shown() -> None:
    """Silence below the limit is a slow moment of a disk."""
    found = report({**GOOD, "silence": STALL_SECONDS - 0.1})

    assert found.stalls == []
    assert "Stalled" not in printed(found)


def test_measuring_again_replaces_what_was_kept(tmp_path: Path) -> None:
    """A round that stalled and is good now, and the other way round."""
    file = tmp_path / "results.json"
    write_json(report(STALLED, GOOD), file)

    found = read_json(file, {})
    assert len(found.stalls) == 1
    found.add(0, NAME, GOOD)
    found.add(1, NAME, STALLED)

    assert [stall.round for stall in found.stalls] == [1]
    assert found.figures.values(f"{NAME}/rate") == [100_000]
