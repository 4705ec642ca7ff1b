"""The page on other packages states what is tried, in the versions that are installed for it."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAKEFILE = (CHECKOUT / "Makefile").read_text().replace("\\\n", " ")
PAGE = (CHECKOUT / "docs" / "ecosystem.md").read_text()
ROWS = dict(re.findall(r"^(?:ECOSYSTEM|APM)_([a-z0-9-]+) := (.+)$", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS)
def test_versions_are_those_that_are_installed(row: str) -> None:
    """Of each package of a row."""
    versions = re.findall(r"==([\w.]+)", ROWS[row])

    assert versions
    assert [version for version in versions if version not in PAGE] == []


def test_each_file_has_its_row() -> None:
    """In the Makefile, which runs it, and on the page."""
    files = {path.name for path in (CHECKOUT / "tests" / "ecosystem").glob("test_*.py")}
    linked = set(re.findall(r"\(\.\./tests/ecosystem/(test_\w+\.py)\)", PAGE))
    tried = {
        f"test_{row.replace('-', '_')}.py" for row in ROWS if f"ECOSYSTEM_{row} :=" in MAKEFILE
    }

    assert files == tried
    assert files == linked
