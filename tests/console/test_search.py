"""Searches, each alone and combined, equal to SQL's, as an address that can be kept."""

import re

import pytest

from tests.console.conftest import PAYLOAD, SECRET, Browse, bury
from tests.fixtures.rows import commit_rows

SEARCHES = {
    "task=shop.mail": {"mail"},
    "queue=slow": {"slow"},
    "task=shop.bill&queue=slow": {"slow"},
    "task=shop.mail&queue=slow": set(),
    "reason=no+queue": {"mail", "slow"},
    "reason=100%25_": {"percent"},
    f"text={SECRET}": {"payload"},
    "id=mail": {"mail"},
    "since=2020-01-01": {"mail", "slow", "payload", "percent"},
    "until=2020-01-01T00:00Z": set(),
    "since=2020-01-01&task=shop.mail&reason=NO_ROUTE": {"mail"},
}


@pytest.fixture
def dead(outbox: str) -> str:
    """Four dead messages that differ."""
    bury(outbox, commit_rows(outbox, message_ids=["mail"], task="shop.mail"))
    bury(outbox, commit_rows(outbox, message_ids=["slow"], routing_key="slow"))
    bury(outbox, commit_rows(outbox, message_ids=["payload"], **PAYLOAD), "refused")
    bury(outbox, commit_rows(outbox, message_ids=["percent"]), "it was 100%_ full")
    return outbox


def test_searches_find_what_they_ask_for(browse: Browse, dead: str) -> None:
    """Wildcards of SQL are ordinary letters."""
    browser = browse(dead)
    found = {
        search: set(
            re.findall(r'class="id">([^<]+)<', browser.get(f"/messages?state=dead&{search}").text)
        )
        for search in SEARCHES
    }

    assert found == SEARCHES


def test_a_viewer_cannot_search_arguments(browse: Browse, dead: str) -> None:
    """Or the answers would tell them apart."""
    answer = browse(dead, "viewer").get(f"/messages?state=dead&text={SECRET}")

    assert (answer.status_code, "payload</small>" in answer.text) == (403, False)


def test_quotes_are_only_quotes(browse: Browse, dead: str) -> None:
    """Neither SQL nor HTML is made of what people type, or of what rows hold."""
    bury(dead, commit_rows(dead, message_ids=["x"], task="<script>alert(1)</script>"), "<b>'\"")
    browser = browse(dead)
    page = browser.get("/messages", params={"state": "dead", "task": "'; DROP TABLE x; --<i>"})
    everything = browser.get("/messages?state=dead").text + browser.get("/failures").text

    assert (page.status_code, "<i>" in page.text) == (200, False)
    assert "<script>alert" not in everything
    assert "<b>'" not in everything
