"""One word for one thing: the glossary defines each term once, and code and pages keep to it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
GLOSSARY = CHECKOUT / "docs/glossary.md"
PAGE = GLOSSARY.read_text()
#: Those of the page's last section that mean nothing else in English, in names as in prose.
RETIRED = re.compile(
    r"(?<![A-Za-z])("
    r"blam(e|ed|ing)|culprits?|innocent|doubtful|leased|astray|hurry|mend(s|ed|ing)?|steer(s|ing)?"
    r"|put_unasked|put_durably"
    r"|(?-i:MOST|LONGEST|SHORTEST)(?=_|\b)"
    r")(?![A-Za-z])",
    re.IGNORECASE,
)
#: What is written there, by its owner. The schema before the first release is as it was.
PLACES = {
    "producer": ["producer/celery_outbox/**/*.py", "tests/producer/**/*.py"],
    "relay": ["relay/outbox_relay/**/*.py"],
    "console": ["console/outbox_console/**/*.py", "tests/console/**/*.py"],
    "worker": ["worker/celery_inbox/**/*.py", "tests/worker/**/*.py"],
    "migrations": [
        "migrations/outbox_migrations/**/*.py",
        "migrations/outbox_migrations/**/*.sql",
        "tests/migrations/**/*.py",
    ],
    "pages": ["*.md", "*/README.md", "docs/**/*.md"],
}


def files(place: str) -> Iterator[Path]:
    """What is written there."""
    for pattern in PLACES[place]:
        yield from (path for path in CHECKOUT.glob(pattern) if path != GLOSSARY)


def test_every_term_is_defined_once() -> None:
    """Two definitions of a word would be two things under one name."""
    rows = re.findall(r"(?m)^\| (\*\*.*?) \|", PAGE)
    terms = [term for row in rows for term in re.findall(r"\*+([^*]+)\*+", row)]

    assert len(terms) > 50
    assert len(terms) == len(set(terms))


@pytest.mark.parametrize("word", ["steer", "steer_message", "_MOST", "MOST_ROWS", "Mended"])
def test_a_word_that_is_retired_is_found(word: str) -> None:
    """Alone, as part of a name, and at the beginning of a sentence."""
    assert RETIRED.search(f"a {word} b")


@pytest.mark.parametrize("word", ["most", "almost", "recommended", "at most", "the longest wait"])
def test_other_words_are_left_alone(word: str) -> None:
    """Plain English stays what it is."""
    assert not RETIRED.search(word)


@pytest.mark.parametrize("place", PLACES)
def test_all_keep_to_it(place: str) -> None:
    """No other word for these things in names, docstrings, logs, comments and pages."""
    read = list(files(place))
    found = {
        f"{path.relative_to(CHECKOUT)}:{number}: {line.strip()}"
        for path in read
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if RETIRED.search(line)
    }

    assert len(read) > 5
    assert found == set()
