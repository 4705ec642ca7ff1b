"""The page of faults has a row for each, and each row has tests and figures."""

import re
from pathlib import Path

from tests.faults.matrix import MATRIX

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "faults.md"
FAULTS = 52


def rows() -> list[list[str]]:
    """The cells of each row."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_fault_is_there() -> None:
    """Once each, in order, under the name that the matrix gives it."""
    shown = [(int(row[0].split()[0]), row[1]) for row in rows()]

    assert shown == [(fault.number, fault.name) for fault in MATRIX]
    assert [number for number, _ in shown] == list(range(1, FAULTS + 1))


def test_every_fault_was_tried_and_lost_nothing() -> None:
    """By tests that exist; what was lost and what was unexpected is counted together."""
    for row in rows():
        assert row[4] == "0", row
        files = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", row[7])
        assert files, row
        assert all((CHECKOUT / file).is_file() for file in files), row
