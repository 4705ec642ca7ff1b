"""What workers have told: in lists, on a message's page, and what is missing; and its canvas."""

import json
import re
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from outbox_migrations import grant
from tests.console.conftest import SECRET, Browse, confirm
from tests.fixtures.receipts import NOTE
from tests.fixtures.rows import commit_rows, commit_twin, ids_in

_AGE = "UPDATE outbox.receipt SET sent_at = sent_at - interval '10 minutes'"


def note(url: str, *receipts: dict[str, object]) -> None:
    """Write receipts, as a worker does."""
    with psycopg.connect(url) as connection:
        connection.execute(NOTE, ("celery@a", json.dumps(receipts)))


def receipt(message_id: str, outcome: str, **more: object) -> dict[str, object]:
    """One of a batch."""
    known = {"task": "shop.bill", "run": 0, "received": 2.0, "finished": 1.0}
    return {"id": message_id, "outcome": outcome, **known, **more}


@pytest.fixture
def watched(database: str) -> str:
    """Three messages that were confirmed ten minutes ago: done, failed, and without a receipt."""
    grant(database)
    with psycopg.connect(database) as connection:
        connection.execute("SELECT inbox.watch('{shop.bill}')")
        connection.execute("UPDATE inbox.watched SET since = now() - interval '1 hour'")
    confirm(database, commit_rows(database, message_ids=["done", "failed", "silent"]))
    with psycopg.connect(database) as connection:
        connection.execute(_AGE)
    note(database, receipt("done", "succeeded"), receipt("failed", "failed", error="KeyError"))
    return database


@pytest.mark.parametrize("role", ["viewer", "operator-with-payload"])
def test_a_list_of_what_was_sent_tells_what_became_of_it(
    browse: Browse, watched: str, role: str
) -> None:
    """The outcome of each, and that there is none."""
    page = browse(watched, role).get("/messages?state=sent").text
    found = re.findall(r'(?s)<small class="id">(\w+)<.*?class="outcome"[^>]*>(.*?)</td>', page)

    assert {name: re.sub(r"<[^>]+>", "", told).strip() for name, told in found} == {
        "done": "succeeded",
        "failed": "failed KeyError",
        "silent": "no receipt",
    }


def test_the_life_of_a_message_ends_with_its_work(browse: Browse, watched: str) -> None:
    """Who had it and how it ended; or that no worker has told of it."""
    browser = browse(watched, "viewer")

    def life(message_id: str) -> list[str]:
        page = browser.get("/find", params={"id": message_id}).text
        return re.findall(r'<li class="step-\w+"><b>([^<]+)</b>', page)

    assert life("done") == ["Committed", "Sent", "Received", "Done"]
    assert life("failed") == ["Committed", "Sent", "Received", "The task has failed"]
    assert life("silent") == ["Committed", "Sent", "No worker has told of it"]


def test_where_no_worker_leaves_receipts_nobody_is_accused(browse: Browse, database: str) -> None:
    """Neither list nor life speaks of receipts, and how much is executed is not known."""
    grant(database)
    confirm(database, commit_rows(database, message_ids=["sent"]))
    browser = browse(database, "viewer")

    assert "no receipt" not in browser.get("/messages?state=sent").text
    assert "No worker has told" not in browser.get("/find", params={"id": "sent"}).text
    assert '<b data-number="executed">\u2013</b>' in browser.get("/").text


def test_what_is_missing_is_listed_and_sent_again(browse: Browse, watched: str) -> None:
    """As the view has it; chosen or all that match, it is replayed on the record."""
    browser = browse(watched)
    page = browser.get("/messages?state=missing")
    assert re.findall(r'<small class="id">(\w+)<', page.text) == ["silent"]
    assert ids_in(watched, "missing") == {"silent"}
    assert "Looked at 3 confirmed messages" in page.text

    asked = browser.submit(page, "/actions/confirm", "replay", all="1")
    assert "Replay 1 missing message?" in asked.text
    browser.submit(asked, "/actions", "replay", why="a worker was killed")

    assert ids_in(watched, "pending") == {"silent"}
    assert "Nothing is missing" in browser.get("/messages?state=missing").text


def test_where_nothing_could_be_missing_nobody_is_praised(browse: Browse, database: str) -> None:
    """Workers have not finished what was looked at: nothing was."""
    grant(database)
    with psycopg.connect(database) as connection:
        connection.execute("SELECT inbox.watch('{shop.bill}')")
    confirm(database, commit_rows(database, 1))
    page = browse(database).get("/messages?state=missing").text

    assert "Nothing to look at" in page
    assert "Nothing is missing" not in page


@pytest.mark.parametrize("all_of_it", [True, False])
def test_what_is_missing_is_sent_again_and_not_what_has_its_id(
    browse: Browse, watched: str, all_of_it: bool
) -> None:
    """A sequence was restarted since: the other one was sent as well, and is done."""
    note(watched, receipt("silent", "succeeded"))
    confirm(watched, commit_rows(watched, message_ids=["lost"]))
    twin = commit_twin(watched, "lost")
    confirm(watched, [twin])
    note(watched, receipt(twin, "succeeded"))
    with psycopg.connect(watched) as connection:
        connection.execute(_AGE)
        connection.execute("UPDATE inbox.watched SET since = now() - interval '9 days'")
    browser = browse(watched)
    page = browser.get("/messages?state=missing")
    chosen = re.findall(r'name="row" value="(\d+)"', page.text)
    choice = {"all": "1"} if all_of_it else {"row": chosen}

    asked = browser.submit(page, "/actions/confirm", "replay", **choice)
    assert "Replay 1 missing message?" in asked.text
    browser.submit(asked, "/actions", "replay")

    assert ids_in(watched, "pending") == {"lost"}
    assert twin in ids_in(watched, "sent")


def test_what_has_long_been_missing_is_chosen_and_sent_again(browse: Browse, watched: str) -> None:
    """However long ago it was confirmed; what is done meanwhile is left alone."""
    with psycopg.connect(watched) as connection:
        connection.execute("UPDATE inbox.watched SET since = now() - interval '9 days'")
        connection.execute("UPDATE outbox.receipt SET sent_at = now() - interval '8 days'")
    confirm(watched, commit_rows(watched, message_ids=["newer"]))
    with psycopg.connect(watched) as connection:
        connection.execute(_AGE)
    browser = browse(watched)
    page = browser.get("/messages?state=missing&since=2020-01-01")
    rows = re.findall(r'name="row" value="(\d+)"', page.text)
    assert len(rows) == 2

    asked = browser.submit(page, "/actions/confirm", "replay", row=rows)
    note(watched, receipt("newer", "succeeded"))
    done = browser.submit(asked, "/actions", "replay")

    assert "Replay 2 missing messages?" in asked.text
    assert ids_in(watched, "pending") == {"silent"}
    assert "1 of 2 were left alone" in done.text


def test_all_that_is_missing_begins_where_people_have_looked_on(
    browse: Browse, watched: str
) -> None:
    """And not with what they have left behind them."""
    with psycopg.connect(watched) as connection:
        connection.execute("UPDATE outbox.receipt SET sent_at = sent_at - interval '20 minutes'")
    begin = datetime.now(UTC) - timedelta(minutes=20)
    confirm(watched, commit_rows(watched, message_ids=["later"]))
    with psycopg.connect(watched) as connection:
        connection.execute(_AGE)
    browser = browse(watched)
    page = browser.get("/messages", params={"state": "missing", "after": begin.isoformat()})

    asked = browser.submit(page, "/actions/confirm", "replay", all="1")
    browser.submit(asked, "/actions", "replay")

    assert ids_in(watched, "pending") == {"later"}


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("task=shop.bill", 1),
        ("task=shop.mail", 0),
        ("queue=celery", 1),
        ("id=silent", 1),
        ("id=done", 0),
        ("since=2020-01-01", 1),
        ("until=2020-01-01", 0),
    ],
)
def test_what_is_missing_is_searched(browse: Browse, watched: str, search: str, found: int) -> None:
    """By all that the list shows."""
    page = browse(watched).get(f"/messages?state=missing&{search}")

    assert (page.status_code, len(re.findall(r'<small class="id">', page.text))) == (200, found)


def test_a_canvas_is_shown_whole(browse: Browse, outbox: str) -> None:
    """Root, parent, children and relatives, each with a link; and no argument of any of them."""

    def send(message_id: str, root: str, parent: str | None) -> None:
        headers = {"root_id": root, "parent_id": parent, "argsrepr": f"('{SECRET}',)"}
        commit_rows(outbox, message_ids=[message_id], headers=json.dumps(headers))

    send("root", "root", None)
    send("middle", "root", "root")
    send("leaf", "root", "middle")
    send("other", "root", "root")
    send("stranger", "stranger", None)
    browser = browse(outbox, "viewer")

    def family(message_id: str) -> dict[str, str]:
        page = browser.get("/find", params={"id": message_id}).text
        assert SECRET not in page, page
        assert "The database" not in page, page
        rows = re.findall(r'(?s)<td data-label="">(\w+)</td>.*?class="id">([^<]+)<', page)
        return {name: relation for relation, name in rows}

    assert family("middle") == {"root": "parent", "leaf": "child", "other": "relative"}
    assert family("leaf") == {"root": "root", "middle": "parent", "other": "relative"}
    assert family("root") == {"middle": "child", "leaf": "relative", "other": "child"}
    assert family("stranger") == {}


def test_two_messages_with_one_number_have_a_page_each(browse: Browse, outbox: str) -> None:
    """The sequence was restarted: the newer is shown, and leads to the other."""
    insert = """INSERT INTO outbox.message (id, slot, message_id, task, body, content_type,
                                            content_encoding, created_at)
        OVERRIDING SYSTEM VALUE VALUES (1, %s, %s, 't', '', 'application/json', 'utf-8', %s)"""
    with psycopg.connect(outbox) as connection:
        connection.execute(insert, [1, "older", "2020-01-01"])
        connection.execute("DELETE FROM outbox.ready")
        connection.execute(insert, [2, "newer", "2020-01-02"])
    browser = browse(outbox)

    page = browser.get("/messages/1").text
    assert '<p class="id">newer' in page
    assert 'href="/messages/1?slot=1"' in page
    assert '<p class="id">older' in browser.get("/messages/1?slot=1").text
