"""What people do: counted first, named in the confirmation, done once, and kept on the record."""

import re
from collections.abc import Callable

import psycopg
import pytest

from tests.console.conftest import Browse, bury, confirm
from tests.fixtures.rows import commit_rows, commit_twin, ids_in, states


def record(url: str) -> list[tuple[object, ...]]:
    """Who did what to how many, and why; oldest first."""
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT who, action, cardinality(ids), why FROM outbox.action ORDER BY id"
        ).fetchall()


ENDS: list[tuple[str, str, dict[str, int], Callable[[str], None]]] = [
    ("dead", "retry", {"pending": 1}, lambda url: bury(url, commit_rows(url, 1))),
    ("dead", "discard", {}, lambda url: bury(url, commit_rows(url, 1))),
    ("pending", "cancel", {}, lambda url: void(commit_rows(url, 1))),
    ("scheduled", "cancel", {}, lambda url: void(commit_rows(url, 1, available_in=3600))),
    ("sent", "replay", {"pending": 1}, lambda url: confirm(url, commit_rows(url, 1))),
]


def void(_: object) -> None:
    """Nothing."""


@pytest.mark.parametrize(("state", "action", "after", "make"), ENDS)
def test_an_action_on_one_message(
    browse: Browse,
    outbox: str,
    state: str,
    action: str,
    after: dict[str, int],
    make: Callable[[str], None],
) -> None:
    """From the page of a message, through the question, to where it belongs, with a record."""
    make(outbox)
    browser = browse(outbox)
    asked = browser.submit(browser.get("/messages/1"), "/actions/confirm", action)
    assert f"{action.capitalize()} 1 {state} message?" in asked.text
    assert states(outbox)[state] == 1  # asked, and not done yet

    done = browser.submit(asked, "/actions", action, why="ticket 4711")

    assert f"{action.capitalize()}: 1 message" in done.text
    assert states(outbox) == {"pending": 0, "scheduled": 0, "sent": 0, "dead": 0, **after}
    assert record(outbox) == [("local", action, 1, "ticket 4711")]
    assert "ticket 4711" in browser.get("/actions").text


def test_what_is_cancelled_is_not_what_has_its_id(browse: Browse, outbox: str) -> None:
    """After a sequence was restarted; found by its message id, chosen, and taken back alone."""
    commit_rows(outbox, message_ids=["later"], available_in=3600)
    twin = commit_twin(outbox, "later")
    browser = browse(outbox)
    page = browser.get(f"/messages?state=pending&id={twin}")
    assert len(re.findall(r'name="row" value="(\d+)"', page.text)) == 1
    assert 'name="row"' not in browser.get("/messages?state=pending&id=later").text

    asked = browser.submit(page, "/actions/confirm", "cancel", row=["1"])
    browser.submit(asked, "/actions", "cancel")

    assert ids_in(outbox, "pending") == set()
    assert ids_in(outbox, "scheduled") == {"later"}


@pytest.mark.parametrize("state", ["pending", "scheduled"])
def test_a_message_gets_another_time(browse: Browse, outbox: str, state: str) -> None:
    """What is due, or scheduled, is held until then."""
    commit_rows(outbox, 1, available_in=3600 if state == "scheduled" else None)
    browser = browse(outbox)
    asked = browser.submit(browser.get("/messages/1"), "/actions/confirm", "reschedule")
    browser.submit(asked, "/actions", "reschedule", at="2199-01-02T03:04")

    with psycopg.connect(outbox) as connection:
        connection.execute("SET timezone = 'UTC'")
        found = connection.execute("SELECT available_at::text FROM outbox.scheduled").fetchall()
    assert found == [("2199-01-02 03:04:00+00",)]


def test_a_time_is_needed_for_another_time(browse: Browse, outbox: str) -> None:
    """Without one, or with nonsense, nothing is done, and the page says why."""
    commit_rows(outbox, 1)
    browser = browse(outbox)
    asked = browser.submit(browser.get("/messages/1"), "/actions/confirm", "reschedule")

    assert [
        browser.submit(asked, "/actions", "reschedule", at=at).status_code
        for at in ("", "soon", "+99999-01-01T00:00")
    ] == [400, 400, 400]
    assert (states(outbox)["pending"], record(outbox)) == (1, [])


def test_an_action_on_the_chosen(browse: Browse, outbox: str) -> None:
    """Those and no others, whatever the search was that showed them."""
    bury(outbox, commit_rows(outbox, message_ids=["a", "b", "c"]))
    browser = browse(outbox)
    page = browser.get("/messages?state=dead&reason=NO_ROUTE")
    rows = re.findall(r'name="row" value="(\d+)"', page.text)
    asked = browser.submit(page, "/actions/confirm", "retry", row=rows[:2])
    assert "Retry 2 dead messages?" in asked.text
    browser.submit(asked, "/actions", "retry")

    assert ids_in(outbox, "dead") == {"a"}


def test_an_action_on_all_that_match(browse: Browse, outbox: str) -> None:
    """All of the search, and none that came after the question was asked."""
    bury(outbox, commit_rows(outbox, 70, task="shop.mail"))
    bury(outbox, commit_rows(outbox, message_ids=["other"]))
    browser = browse(outbox)
    page = browser.get("/messages?state=dead&task=shop.mail")
    asked = browser.submit(page, "/actions/confirm", "retry", all="1")
    assert "Retry 70 dead messages?" in asked.text
    bury(outbox, commit_rows(outbox, message_ids=["later"], task="shop.mail"))
    done = browser.submit(asked, "/actions", "retry")

    assert "Retry: 70 messages" in done.text
    assert ids_in(outbox, "dead") == {"other", "later"}


def test_what_changed_meanwhile_is_left_alone(browse: Browse, outbox: str) -> None:
    """Done twice it is done once, and the page says how many were left."""
    bury(outbox, commit_rows(outbox, 2))
    browser = browse(outbox)
    page = browser.get("/messages?state=dead")
    asked = browser.submit(page, "/actions/confirm", "retry", all="1")
    browser.submit(asked, "/actions", "retry")
    again = browser.submit(asked, "/actions", "retry")

    assert "2 of 2 were left alone" in again.text
    assert len(record(outbox)) == 1


@pytest.mark.parametrize("role", ["viewer", "viewer-with-payload"])
def test_a_viewer_is_refused_by_the_database(browse: Browse, outbox: str, role: str) -> None:
    """The page offers nothing; a form made by hand fails where it counts."""
    bury(outbox, commit_rows(outbox, 1))
    browser = browse(outbox, role)
    page = browser.get("/messages?state=dead").text
    token = re.findall(r'name="token" value="([^"]+)"', page)[0]
    assert "Retry" not in page
    fields = {"token": token, "state": "dead", "action": "retry", "row": "1"}
    answer = browser.post("/actions", data={**fields, "newest": "9", "count": "1"})

    assert (answer.status_code, "The database refuses this" in answer.text) == (403, True)
    assert (states(outbox)["dead"], record(outbox)) == (1, [])


def test_what_does_not_fit_a_state_is_refused(browse: Browse, ten: str) -> None:
    """No way to discard what is pending as if it were dead, or to do what there is not."""
    browser = browse(ten)
    token = re.findall(r'name="token" value="([^"]+)"', browser.get("/messages?state=dead").text)[0]
    before = states(ten)
    answers = [
        browser.post("/actions", data={"token": token, "newest": "9", "count": "9", **fields})
        for fields in (
            {"state": "pending", "action": "retry", "row": "1"},
            {"state": "dead", "action": "drop", "row": "1"},
            {"state": "lost", "action": "retry", "row": "1"},
            {"state": "dead", "action": "retry"},
        )
    ]

    assert {answer.status_code for answer in answers} <= {400, 404}
    assert states(ten) == before
