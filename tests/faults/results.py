"""What each case measured, in one file: docs/faults.md is made of it.

A line of JSON for each case that has passed; a later line about the same case replaces it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.checker import Verdict

FILE: Final = Path(__file__).resolve().parents[2] / ".faults" / "results.jsonl"

#: What a schedule of the soak is called, before its seed.
SOAK: Final = "tests/faults/test_soak.py::"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one case: its verdict, and seconds until messages were sent again."""

    verdict: Verdict
    faults: int
    allowed: int
    recovery: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A line of the file."""

    test: str
    faults: tuple[int, ...]  # numbers of the matrix
    struck: int = 0
    lost: int = 0
    duplicated: int = 0
    allowed: int = 0
    recovered: int = 0
    unexpected: int = 0
    recovery: float | None = None
    note: str = ""
    smoke: bool = False


def write(test: str, numbers: tuple[int, ...], measured: Measured | None, *, smoke: bool) -> None:
    """Add a line."""
    line: dict[str, object] = {"test": test, "faults": numbers, "smoke": smoke}
    if measured is not None:
        verdict = measured.verdict
        line |= {
            "struck": measured.faults,
            "lost": len(verdict.lost),
            "duplicated": verdict.duplicated,
            "allowed": measured.allowed,
            "recovered": len(verdict.recovered),
            "unexpected": len(verdict.unexpected),
            "recovery": None if measured.recovery is None else round(measured.recovery, 2),
            "note": measured.note,
        }
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")


def read() -> dict[str, Result]:
    """The newest result of each test."""
    results = {}
    for line in FILE.read_text().splitlines():
        entry = json.loads(line)
        results[entry["test"]] = Result(**{**entry, "faults": tuple(entry["faults"])})
    return results
