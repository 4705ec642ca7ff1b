"""`make help` can be read in the terminal one has: nothing in it runs over the edge."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Where what a target does begins: behind the longest name, and two blanks.
COLUMN = 26


def shown(**environment: str) -> list[str]:
    """The lines of `make help`."""
    done = subprocess.run(
        ["make", "help"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_help_is_as_wide_as_the_terminal(width: int) -> None:
    """Every target stands there with all its words, below its heading, and none is cut off."""
    makefile = (ROOT / "Makefile").read_text()
    lines = shown(COLUMNS=str(width))

    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 10
    said = re.findall(r"(?m)^##@ (.+)|^([a-z-]+):.*?## (.+)", makefile)
    expected = [heading or f"make {name} {text}" for heading, name, text in said]
    assert " ".join(" ".join(lines).split()) == " ".join(" ".join(expected).split())


def test_all_that_targets_do_begins_in_one_column() -> None:
    """Also what is continued on the next line."""
    for line in shown(COLUMNS="80"):
        if line.startswith(" "):
            assert re.match(rf".{{{COLUMN - 2}}}  \S", line), line


def test_help_needs_no_terminal() -> None:
    """Where nobody says how wide it is, it is as wide as they usually are."""
    lines = shown(COLUMNS="", TERM="")

    assert max(map(len, lines)) <= 80
