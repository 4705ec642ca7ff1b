"""The guarantees page names only tests that exist."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_named_exists() -> None:
    """No promise rests on a test that was renamed or removed."""
    named = NAMED.findall((CHECKOUT / "docs" / "guarantees.md").read_text())

    assert len(named) > 40
    for file, test in named:
        assert (CHECKOUT / file).is_file(), file
        if test:
            assert f"def {test}(" in (CHECKOUT / file).read_text(), f"{file}::{test}"


def test_every_promise_names_a_test() -> None:
    """A row of a table without a test would be a claim."""
    page = (CHECKOUT / "docs" / "guarantees.md").read_text()
    promises = [
        line
        for line in page.splitlines()
        if line.startswith("| ") and not line.startswith("| promise")
    ]

    assert promises
    assert [line for line in promises if not NAMED.search(line)] == []
