"""One word for one thing: the glossary defines each term once, and the relay's code keeps to it."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "docs/glossary.md").read_text()
#: Those of the page's last section that mean nothing else in English.
RETIRED = re.compile(
    r"\b(blam(e|ed|ing)|culprits?|innocent|doubtful|leased|astray|hurry|mend(s|ed)?|steer(s|ing)?)\b"
)


def test_every_term_is_defined_once() -> None:
    """Two definitions of a word would be two things under one name."""
    rows = re.findall(r"(?m)^\| (\*\*.*?) \|", PAGE)
    terms = [term for row in rows for term in re.findall(r"\*+([^*]+)\*+", row)]

    assert len(terms) > 40
    assert len(terms) == len(set(terms))


def test_the_relay_keeps_to_it() -> None:
    """No other word for these things in names, docstrings, logs and comments."""
    found = {
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in (CHECKOUT / "relay/outbox_relay").rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if RETIRED.search(line)
    }

    assert found == set()
