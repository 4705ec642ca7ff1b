"""The page of faults that were fixed names, for each, a test that exists."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/fixed-faults.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_named_exists() -> None:
    """Whoever renames or removes one says so on the page."""
    named = NAMED.findall(PAGE)

    assert len(named) > 70
    for file, test in named:
        assert f"def {test}(" in (CHECKOUT / file).read_text(), f"{file}::{test}"


def test_every_fault_names_its_test() -> None:
    """A row without one would be a claim."""
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not line.startswith("| what happened")
    ]

    assert len(rows) > 60
    assert [row for row in rows if not NAMED.search(row)] == []
