"""What waits on purpose is told apart from what fails: on the overview, its page and Failures."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from outbox_migrations import grant
from tests.console.conftest import Browse, bury
from tests.console.test_crew import relay
from tests.fixtures.rows import commit_rows

REASON = "paused: queue:mail is paused by ada: the provider is down"
#: As a relay does with what it has claimed and may not publish.
_SET_ASIDE = """
WITH gone AS (DELETE FROM outbox.ready WHERE id IN (
    SELECT m.id FROM outbox.message m WHERE m.message_id = ANY (%s)) RETURNING id, slot)
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error, route)
SELECT id, slot, 'retry', now() + interval '1 hour', %s, %s, %s FROM gone
"""
_AGE = "UPDATE outbox.message SET created_at = created_at - interval '10 minutes'"


def set_aside(
    url: str, message_ids: list[str], attempts: int = 0, reason: str = REASON, held: bool = True
) -> None:
    """Have messages wait for the pause of their queue, or for another attempt."""
    with psycopg.connect(url) as connection:
        values = (message_ids, attempts, reason, "\x1equeue:mail" if held else None)
        connection.execute(_SET_ASIDE, values)


@pytest.fixture
def paused(database: str) -> Iterator[str]:
    """Nine messages of a paused queue that have waited for ten minutes, and a relay."""
    grant(database)
    with psycopg.connect(database) as connection:
        connection.execute("SELECT outbox.pause(queue => 'mail', who => 'ada')")
    set_aside(database, commit_rows(database, 9, routing_key="mail"))
    with psycopg.connect(database) as connection:
        connection.execute(_AGE)
    with relay(database):
        yield database


def verdict(page: str) -> tuple[str, str]:
    """Level and title of the overview."""
    found = re.search(r'verdict-(\w+)"(?s:.*?)<h1>([^<]+)<', page)
    assert found, page
    return found[1], found[2]


def test_a_pause_is_no_outage(browse: Browse, paused: str) -> None:
    """Where nearly all that waits is paused, the overview says so, and where to look."""
    commit_rows(paused, 1)
    page = browse(paused).get("/").text

    assert verdict(page) == ("busy", "Paused: 9 messages wait")
    assert "see Routes" in page


def test_a_pause_hides_no_outage(browse: Browse, paused: str) -> None:
    """More waits than was paused, and nothing was confirmed for long."""
    commit_rows(paused, 2)
    with psycopg.connect(paused) as connection:
        connection.execute(_AGE)

    assert verdict(browse(paused).get("/").text)[0] == "bad"


def test_the_dead_come_before_a_pause(browse: Browse, paused: str) -> None:
    """Nobody wanted these to wait; and of the others it is not said that they flow."""
    bury(paused, commit_rows(paused, 1))
    page = browse(paused).get("/").text

    assert verdict(page) == ("bad", "1 message given up")
    assert "The others are paused" in page


@pytest.mark.parametrize("attempts", [0, 2])
def test_what_is_held_back_has_no_next_attempt(
    browse: Browse, database: str, attempts: int
) -> None:
    """It goes on when the pause ends; when a relay looks again is nobody's business."""
    grant(database)
    set_aside(database, commit_rows(database, message_ids=["a-mail"]), attempts)
    page = browse(database, "viewer").get("/find", params={"id": "a-mail"}).text
    life = re.findall(r'(?s)<li class="step-\w+"><b>([^<]+)</b>(.*?)</li>', page)

    assert [title for title, _ in life] == ["Committed", *["Refused"] * bool(attempts), "Held back"]
    assert "<time" not in life[-1][1]
    assert REASON in life[-1][1]
    assert [title for title, rest in life if REASON in rest] == ["Held back"]


def test_what_is_held_back_is_no_failure(browse: Browse, paused: str) -> None:
    """It is counted, and leads to Routes; what does fail has the page for itself."""
    browser = browse(paused)
    assert "Nothing waits for another attempt" in browser.get("/failures").text
    set_aside(paused, commit_rows(paused, 2), 1, "nacked: the queue is full", held=False)
    page = browser.get("/failures").text

    causes = re.findall(r'class="big">(\d+)</b><h3 class="wrap">([^<]+)<', page)
    assert causes == [("2", "nacked: the queue is full")]
    assert "Left out: 9 messages held back on purpose" in page
