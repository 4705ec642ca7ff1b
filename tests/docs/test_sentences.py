"""What once was said wrongly is said rightly: each sentence on its page, and its program tested."""

import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
#: Quotes what once was said.
QUOTES: Final = ROOT / "docs" / "fixed-faults.md"
#: Where people read: the README, and the pages.
PAGES: Final = {
    ROOT / "README.md",
    *(ROOT / "docs").rglob("*.md"),
    *ROOT.glob("*/README.md"),
} - {QUOTES}


class Sentence(NamedTuple):
    """What a page says, and the test that the program does so."""

    page: str
    says: str
    test: str


SENTENCES: Final = {
    "doctor without the database": Sentence(
        "docs/commands.md",
        "Without the database it says of nothing that it is well which the database alone knows,"
        " and examines the brokers all the same.",
        "tests/relay/operator/test_doctor.py::test_without_a_database_nothing_is_said_of_routes",
    ),
    "one version": Sentence(
        "docs/commands.md",
        "version 1 (outbox_0001, as outbox-migrate status has it)",
        "tests/relay/operator/test_doctor.py::test_the_schema_is_named_as_the_migrations_name_it",
    ),
    "what a login may not see": Sentence(
        "docs/commands.md",
        "What a login may not see is said, with the role that may.",
        "tests/relay/cli/test_status.py::test_what_a_login_may_not_see_is_said",
    ),
    "an address in use": Sentence(
        "docs/operations.md",
        "Two relays on one machine need two addresses; the second says so",
        "tests/relay/observe/test_health.py::test_an_address_in_use_names_its_variable",
    ),
    "the broker's words": Sentence(
        "docs/commands.md",
        "A refusal is told in the broker's own words.",
        "tests/relay/operator/test_doctor.py::test_a_refusal_is_told_in_the_brokers_words",
    ),
    "logs on a terminal": Sentence(
        "docs/operations.md",
        "`auto`: console on a terminal, else json",
        "tests/relay/observe/test_log_format.py::test_on_a_terminal_it_is_text",
    ),
    "dead messages": Sentence(
        "README.md",
        "once the cause is fixed they are retried, unchanged.",
        "tests/docs/test_sentences.py::test_no_page_promises_to_change_a_message",
    ),
    "the demo": Sentence(
        "README.md",
        "They install what they use inside this directory",
        "tests/setup/test_habits.py::test_making_the_environment_is_quiet",
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_it_is_on_its_page(name: str) -> None:
    """Word for word, wherever the line breaks."""
    page, says, _ = SENTENCES[name]
    assert says in " ".join((ROOT / page).read_text().split())


@pytest.mark.parametrize("name", SENTENCES)
def test_the_program_is_tested(name: str) -> None:
    """The test that is named exists."""
    file, _, function = SENTENCES[name].test.partition("::")
    assert f"def {function}(" in (ROOT / file).read_text()


def test_no_page_promises_to_change_a_message() -> None:
    """A message never changes once it is stored, dead or not: nothing could correct one."""
    change = r"(?:correct|edit|chang|repair|amend)\w*"
    promise = re.compile(
        rf"\b(?:dead|message|row)s?\b[^.|]*\b(?:can|may|could) be {change}", re.IGNORECASE
    )
    found = {
        f"{page.relative_to(ROOT)}: {match.group()}"
        for page in PAGES
        for match in promise.finditer(" ".join(page.read_text().split()))
    }
    assert found == set()
