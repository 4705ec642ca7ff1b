"""Every page, with nothing, with ten rows and with many; and what it says of them."""

import json
import re
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from outbox_console.outbox.failures import NAMED_IN_ALL, Failed, by_cause, cause_of, to_name
from outbox_console.outbox.states import STATES
from tests.console.conftest import Browse, bury, confirm
from tests.fixtures.rows import commit_rows, ids_in

PAGES = [
    *("/", "/failures", "/routes", "/workers", "/doctor", "/actions"),
    *(f"/messages?state={state.name}" for state in STATES),
]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_of_an_empty_outbox_says_so(browse: Browse, outbox: str, path: str) -> None:
    """Nothing is there, and the page says what that means instead of showing an empty table."""
    page = browse(outbox).get(path)

    assert page.status_code == 200
    assert "<table" not in page.text
    assert "<title>" in page.text


@pytest.mark.parametrize("state", [state.name for state in STATES if state.name != "missing"])
def test_a_list_shows_what_its_view_does(browse: Browse, ten: str, state: str) -> None:
    """The same messages, each with a link to its page, which names the state."""
    browser = browse(ten)
    page = browser.get(f"/messages?state={state}").text

    assert {found for found in ids_in(ten, state) if found in page} == ids_in(ten, state)
    links = re.findall(r'href="(/messages/\d+)"', page)
    assert len(links) == 2
    for link in links:
        assert f"state-{state}" in browser.get(link).text


def test_the_overview_counts_as_the_views_do(browse: Browse, ten: str) -> None:
    """Each number is that of SQL; a relay that is missing is the first thing said."""
    page = browse(ten).get("/").text

    with psycopg.connect(ten) as connection:
        for name in ("pending", "scheduled", "dead", "expired"):
            query = SQL("SELECT count(*) FROM outbox.{}").format(Identifier(name))
            (count,) = connection.execute(query).fetchall()[0]
            assert f'data-number="{name}">{count}<' in page
    assert "No relay is connected, and 2 messages wait" in page


def test_the_title_has_the_number_of_the_dead(browse: Browse, ten: str) -> None:
    """On every page, so that a tab in the background tells."""
    browser = browse(ten)
    browser.get("/")

    assert "<title>(2) Failures" in browser.get("/failures").text


def test_numbers_move_by_themselves(browse: Browse, outbox: str) -> None:
    """The stream of events tells what was committed after the page was loaded."""
    with browse(outbox).stream("GET", "/events") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        first = json.loads(next(lines).removeprefix("data: "))
        commit_rows(outbox, 3)
        later = first
        while later["numbers"]["pending"] == "0":
            later = json.loads(next(lines).removeprefix("data: "))

    assert (first["numbers"]["pending"], later["numbers"]["pending"]) == ("0", "3")
    assert later["verdict"][0] == "bad"


@pytest.mark.parametrize("state", ["pending", "scheduled", "dead", "sent"])
def test_pages_show_each_message_once(browse: Browse, outbox: str, state: str) -> None:
    """From the first page to the last, in the order of the state, whatever was added meanwhile."""
    made = commit_rows(outbox, 120, available_in=3600 if state == "scheduled" else None)
    if state == "dead":
        bury(outbox, made)
    if state == "sent":
        confirm(outbox, made)
    browser, seen, path = browse(outbox), [], f"/messages?state={state}"
    while path:
        page = browser.get(path).text
        seen += re.findall(r'<small class="id">([^<]+)<', page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = following[1].replace("&amp;", "&") if following else ""

    assert sorted(seen) == sorted(made)


def test_what_a_message_declares_is_shown_where_it_declares_something(
    browse: Browse, ten: str
) -> None:
    """An empty list tells nobody anything."""
    (plain,) = commit_rows(ten, message_ids=["plain"])
    browser = browse(ten)

    assert "it declares" in browser.get("/messages/1").text
    assert "it declares" not in browser.get("/find", params={"id": plain}).text


@pytest.mark.parametrize("number", [10, 2**63, 10**30])
def test_a_number_that_no_row_has_is_no_message(browse: Browse, ten: str, number: int) -> None:
    """However large it is; no table is read from end to end for it."""
    page = browse(ten).get(f"/messages/{number}0")

    assert (page.status_code, "There is no message" in page.text) == (404, True)


def test_failures_are_grouped_by_cause(browse: Browse, outbox: str) -> None:
    """What differs from message to message is no cause of its own; each leads to its messages."""
    bury(outbox, commit_rows(outbox, 2), "message size 17000001 is larger than 16777216")
    bury(outbox, commit_rows(outbox, 1), "message size 18000002 is larger than 16777216")
    bury(outbox, commit_rows(outbox, 1, task="shop.mail"), "NO_ROUTE")
    browser = browse(outbox)
    page = browser.get("/failures").text

    counts = re.findall(r'class="big">(\d+)</b><h3 class="wrap">([^<]+)<', page)
    assert counts == [("3", "message size … is larger than …"), ("1", "NO_ROUTE")]
    (link,) = re.findall(r'href="([^"]+is\+larger[^"]*)">Look', page) or re.findall(
        r'href="([^"]+is%20larger[^"]*)">Look', page
    )
    found = browser.get(link.replace("&amp;", "&")).text
    assert len(re.findall(r'<small class="id">', found)) == 3


def test_of_very_many_failures_some_are_looked_up(browse: Browse, outbox: str) -> None:
    """All are counted; whose tasks and queues are told is said, and they are the newest."""
    bury(outbox, commit_rows(outbox, 150, task="shop.old"), "NO_ROUTE")
    bury(outbox, commit_rows(outbox, 60, task="shop.mail", routing_key="mail"), "NO_ROUTE")
    bury(outbox, commit_rows(outbox, 3, task="shop.bill"), "too large")
    page = browse(outbox, "viewer").get("/failures").text

    assert re.findall(r'class="big">(\d+)</b><h3 class="wrap">([^<]+)<', page) == [
        ("210", "NO_ROUTE"),
        ("3", "too large"),
    ]
    assert re.findall(r">(shop\.\w+)</a> <small>(\d+)<", page) == [
        ("shop.mail", "60"),
        ("shop.old", "40"),
        ("shop.bill", "3"),
    ]
    assert page.count("tasks and queues of the newest 100") == 1


def test_of_very_many_causes_the_most_frequent_are_looked_up() -> None:
    """No more messages than a page has time for."""
    moment = datetime.now(UTC)
    failed = [Failed(n, 0, f"cause {'x' * (n % 30)}", moment) for n in range(2000)]

    chosen = to_name(members for _, members in by_cause(failed))

    assert len(chosen) == NAMED_IN_ALL


def test_an_id_leads_to_its_message(browse: Browse, ten: str) -> None:
    """A message id, or a row's number; what is unknown gets a sentence."""
    browser = browse(ten)
    some = sorted(ids_in(ten, "dead"))[0]

    assert some in browser.get("/find", params={"id": some}).text
    assert browser.get("/find", params={"id": "1"}).status_code == 200
    unknown = browser.get("/find", params={"id": "no-such-id"})
    assert (unknown.status_code, "No message has this id" in unknown.text) == (404, True)


def test_what_is_not_there_is_said_with_a_way_out(browse: Browse, outbox: str) -> None:
    """A page, a message, a state, a time: no traceback, and no blank page."""
    browser = browse(outbox)
    answers = {
        path: browser.get(path)
        for path in (
            "/nothing",
            "/messages/1",
            "/messages?state=lost",
            "/messages?since=soon",
            "/messages?id=%00",
            "/messages?after=x",
            "/messages?reason=x&state=sent",
            "/messages/99999999999999999999999",
        )
    }

    assert {path for path, each in answers.items() if each.status_code not in (400, 404)} == set()
    assert {
        path
        for path, each in answers.items()
        if "<h1>" not in each.text and "<h2>" not in each.text
    } == set()


def test_a_cause_keeps_the_code_of_a_reply() -> None:
    """And loses what is one message's alone."""
    assert cause_of("312 NO_ROUTE: no queue takes a") == "312 NO_ROUTE: no queue takes a"
    assert cause_of("size 7000 is larger than 5000") == "size … is larger than …"
