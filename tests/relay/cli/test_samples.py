"""The samples of docs/commands.md have the fields that the commands print today."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from command_samples.page import SHORTENED, samples, written
from outbox_relay.cli import status_many
from outbox_relay.operator.listing import LISTINGS, Listing
from tests.relay.conftest import Cli, Outbox

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "commands.md").read_text()
#: Nothing has expired on the page.
SHOWN = [listing for listing in LISTINGS if listing.name != "expired"]


def sample(beginning: str) -> str:
    """What the page shows of the first command that begins so."""
    return next(printed for command, printed in samples(PAGE) if command.startswith(beginning))


def names(printed: str) -> list[str]:
    """The columns of a table, or of a row whose fields stand below each other."""
    first, *_ = printed.split("\n\n")
    if ": " in first.splitlines()[0]:
        return re.findall(r"(?:^|   |^  )(\w+): ", first, re.MULTILINE)
    return re.split(r"\s{2,}", first.splitlines()[0])


@pytest.mark.parametrize("listing", SHOWN, ids=lambda each: each.name)
def test_lists(listing: Listing, cli: Cli, outbox: Outbox) -> None:
    """As a list is printed in a pipe, its columns are those on the page."""
    printed = cli(listing.name).out

    assert names(sample(f"outbox-relay {listing.name}")) == printed.splitlines()[0].split("\t")


def test_keys_of_json(cli: Cli, outbox: Outbox) -> None:
    """Of a dead message, and of the status."""
    outbox.add_dead()
    [dead] = json.loads(sample("outbox-relay dead --limit 1 --json"))
    status = json.loads(sample("outbox-relay status --json"))

    assert [dead.keys()] == [each.keys() for each in cli("dead", "--json").json()]
    assert status.keys() == cli("status", "--json").json().keys()


def test_status(cli: Cli, outbox: Outbox) -> None:
    """Each line but those of relays, which are as many as there are."""
    printed = [line.split("\t")[0] for line in cli("status").out.splitlines()]
    shown = [re.split(r"\s{2,}", line)[0] for line in sample("outbox-relay status").splitlines()]

    assert [name for name in shown if name] == printed


def test_status_of_many() -> None:
    """The columns of a terminal, on which troubles stand below."""
    page = (DOCS / "how-to/many-outboxes.md").read_text()
    printed = dict(samples(page))["outbox-relay status"]

    assert printed.splitlines()[1].split() == [*status_many.COLUMNS[:-1]]


def test_show(cli: Cli, outbox: Outbox) -> None:
    """Every field of a dead message."""
    printed = cli("show", outbox.add_dead()).out

    assert _fields(sample("outbox-relay show ")) == _fields(printed)


def test_findings_of_doctor() -> None:
    """Whatever a report on the page finds is explained in the table below it."""
    explained = set(re.findall(r"`([\w -]+)`", _table("| finding | problem when |")))
    found = {
        name
        for command, printed in samples(PAGE)
        if command == "outbox-relay doctor"
        for name in re.findall(r"^(?:ok|warn|problem) +([\w -]+): ", printed, re.MULTILINE)
    }

    assert "dead letters" in found
    assert found - explained == {"settings"}


def test_what_was_played_is_written() -> None:
    """Each turn of a command has its own, and what was not played stays."""
    page = "```console\n$ a\nold\n$ b\nkept\n```\ntext\n```console\n$ a\nold\n\nolder\n```\n"
    played: Mapping[str, list[str]] = {"a": ["1\n", "2\n"]}

    assert written(page, played) == (
        "```console\n$ a\n1\n$ b\nkept\n```\ntext\n```console\n$ a\n2\n```\n"
    )
    assert written(PAGE, {}) == PAGE
    assert any(SHORTENED in command for command, _ in samples(PAGE))


def _fields(printed: str) -> list[str]:
    return re.findall(r"^(\w+) ", printed, re.MULTILINE)


def _table(head: str) -> str:
    return PAGE[PAGE.index(head) :].split("\n\n")[0]
