"""Routes, relays and workers: figures are as in SQL, and what is not known is said to be so."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import psycopg
import pytest

from outbox_console.depths import Depth, Depths, parse
from outbox_console.outbox.routes import PAGES, PAGES_OF_FEW, Parts, Route, pages_for, scaled
from outbox_console.outbox.samples import Counts
from outbox_console.outbox.workers import Relay
from outbox_migrations import grant, upgrade
from tests.console.conftest import Browse, Browser, bury
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until

RELAY = "outbox-relay 0.1.0 {schema}.{broker}.{settings}"
METRICS = """\
# TYPE outbox_queue_depth gauge
outbox_queue_depth{queue="celery"} 12.0
outbox_queue_depth{queue="a \\"b\\" \\\\ c"} 1.0
outbox_queue_consumers{queue="celery"} 2.0
outbox_pending_messages 3.0
"""


@contextmanager
def relay(url: str, broker: str = "bbbbbb") -> Iterator[None]:
    """Something that is named like a relay's connection."""
    name = RELAY.format(schema="aaaa", broker=broker, settings="cc")
    with psycopg.connect(url, application_name=name):
        yield


def rows(page: str) -> list[list[str]]:
    """The text of each cell of each row."""
    return [
        [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"(?s)<td.*?</td>", row)]
        for row in re.findall(r"(?s)<tr>\s*<td.*?</tr>", page)
    ]


def test_routes_count_as_sql_does(browse: Browse, outbox: str) -> None:
    """By exchange and key, each state for itself; the fullest first."""
    commit_rows(outbox, 3, routing_key="mail")
    commit_rows(outbox, 2, routing_key="mail", available_in=3600)
    bury(outbox, commit_rows(outbox, 1, routing_key="mail"))
    bury(outbox, commit_rows(outbox, 4, exchange="events", routing_key="paid"))

    found = rows(browse(outbox).get("/routes").text)

    assert [row[:4] for row in found] == [
        ["mail", "3", "2", "1"],
        ["events\u203apaid", "0", "0", "4"],
    ]


def test_many_rows_are_estimated(browse: Browse, outbox: str) -> None:
    """A sample comes near, says that it is one, and its links lead to the whole."""
    commit_rows(outbox, 30_000, routing_key="mail")

    page = browse(outbox).get("/routes").text
    (row,) = rows(page)

    assert row[1].startswith("≈ ")
    assert int(row[1].removeprefix("≈ ").replace(",", "")) == 30_000  # as outbox.stats counts
    assert "Counts with ≈ are of a sample" in page


def test_estimates_add_up_to_what_there_is() -> None:
    """Shares are those of the sample; a state of which nothing was seen is not made up."""
    routes = [Route("", "a", 30, 0, 5, None, []), Route("", "b", 10, 0, 0, None, [])]
    totals = Counts(pending=80, scheduled=9, dead=50, expired=0)

    found = scaled(routes, totals, frozenset({"pending", "scheduled", "dead"}))
    exact = scaled(routes, totals, frozenset({"scheduled"}))

    assert [(each.pending, each.scheduled, each.dead) for each in found] == [
        (60, 0, 50),
        (20, 0, 0),
    ]
    assert exact == routes  # what was counted is not made to fit an older total


def test_few_rows_are_looked_for_in_all_of_a_table_that_was_large() -> None:
    """What was sent has left it nearly empty: some of its pages would show nothing."""
    assert pages_for(Counts(18, 212, 35, 3)) == PAGES_OF_FEW
    assert pages_for(Counts(2_000, 0, 0, 0)) == PAGES
    assert pages_for(None) == PAGES


def test_a_table_that_was_large_hides_nothing_that_waits(browse: Browse, outbox: str) -> None:
    """All but nine of many are gone and have left their pages empty; the nine are counted."""
    commit_rows(outbox, 20_000, routing_key="mail")
    with psycopg.connect(outbox) as connection:
        connection.execute(
            "DELETE FROM outbox.ready"
            " WHERE id NOT IN (SELECT id FROM outbox.ready ORDER BY id DESC LIMIT 9)"
        )

    page = browse(outbox).get("/routes").text

    assert {row[0]: row[1] for row in rows(page)}["mail"] == "9"


def test_each_state_that_is_estimated_is_marked() -> None:
    """What is pending is in three tables, and the rest in one."""
    assert Parts(100, 100, 100, 0).estimated == frozenset()
    assert Parts(3, 100, 100, 0).estimated == {"pending"}
    assert Parts(100, 100, 3, 0).estimated == {"pending", "scheduled", "dead"}


def test_few_of_a_sample_are_marked_as_well(browse: Browse, outbox: str) -> None:
    """A count is no surer because it is small; what is counted has no mark."""
    commit_rows(outbox, 2000, routing_key="mail")
    commit_rows(outbox, 40, routing_key="news")
    bury(outbox, commit_rows(outbox, 1, routing_key="mail"))

    found = rows(browse(outbox).get("/routes").text)

    assert {row[1][:2] for row in found} == {"≈ "}
    assert [row[3] for row in found if row[0] == "mail"] == ["1"]


def test_what_is_paused_is_said(browse: Browse, database: str) -> None:
    """What, by whom and why, above the routes; and it is on the record."""
    grant(database)
    commit_rows(database, 1, routing_key="mail")
    with psycopg.connect(database) as connection:
        connection.execute(
            "SELECT outbox.pause(queue => 'mail', reason => 'the provider is down', who => 'ada')"
        )
    browser = browse(database, "viewer")
    page = browser.get("/routes").text

    assert "queue:mail" in page
    assert "the provider is down" in page
    assert "ada" in page
    assert "pause" in browser.get("/actions").text


def test_a_relay_is_seen_and_named(browse: Browse, outbox: str) -> None:
    """Those that publish elsewhere are pointed out; the overview counts each once."""
    browser = browse(outbox)
    assert "No relay is connected" in browser.get("/workers").text

    with relay(outbox), relay(outbox, broker="dddddd"):
        page = browser.get("/workers").text
        assert page.count("process ") == 2
        assert "They do not publish to the same place" in page
        wait_until(lambda: _relays(browser) == 2, 20, "both relays on the overview")
    wait_until(lambda: _relays(browser) == 0, 20, "that both are gone")


def _relays(browser: Browser) -> int:
    found = re.findall(r'data-number="relays">(\d+)<', browser.get("/").text)
    return int(found[0])


def test_the_name_of_a_relay_is_read() -> None:
    """Its other connection has no version, and is none of another kind."""
    named = Relay(1, None, None, None, "outbox-relay 1.2.3 aaaa.bbbbbb.ccdd")
    other = Relay(1, None, None, None, "outbox-relay")

    assert (named.version, named.broker, named.settings) == ("1.2.3", "bbbbbb", "ccdd")
    assert (other.version, other.broker, other.settings) == ("", "", "")


@pytest.mark.parametrize("role", ["viewer", "operator-with-payload"])
def test_workers_are_shown_as_they_announce_themselves(
    browse: Browse, database: str, role: str
) -> None:
    """Alive or lost, with queues and tasks; routes count those that take from them."""
    grant(database)
    with psycopg.connect(database) as connection:
        said = '{"queues": ["celery"], "tasks": ["shop.bill", "shop.mail"]}'
        connection.execute("SELECT inbox.announce('celery@a', %s, 60)", [said])
        connection.execute("SELECT inbox.announce('celery@b', %s, -1)", [said])
    commit_rows(database, 1)
    commit_rows(database, 1, routing_key="mail")
    browser = browse(database, role)

    found = {row[0]: row[1:3] for row in rows(browser.get("/workers").text)}
    taken = {row[0]: row[5] for row in rows(browser.get("/routes").text)}

    assert found == {
        "celery@aalive": ["celery", "shop.bill, shop.mail"],
        "celery@blost": ["celery", "shop.bill, shop.mail"],
    }
    assert taken == {"celery": "1", "mail": "none known"}


def test_without_an_inbox_nothing_is_claimed_of_workers(
    browse: Browse, empty_database: str
) -> None:
    """Neither that there is none nor that nobody takes what waits."""
    upgrade(empty_database, component="outbox")
    grant(empty_database)
    commit_rows(empty_database, 1)
    browser = browse(empty_database)

    assert "Which workers take from a queue is not known" in browser.get("/routes").text
    assert "Not known" in browser.get("/workers").text


def test_depths_are_read_from_a_relays_metrics() -> None:
    """Names are unescaped; who consumes is unknown where no metric tells."""
    assert parse(METRICS) == {"celery": Depth(12, 2), 'a "b" \\ c': Depth(1, None)}


@pytest.mark.parametrize(
    ("how", "known"),
    [("at once", True), ("drips", False), ("endless", False), ("silent", False), ("other", False)],
)
def test_a_relay_that_answers_oddly_keeps_no_page_waiting(how: str, known: bool) -> None:
    """Slowly, for ever, with nothing or with something else: what is there is not known."""
    with metrics(how) as url:
        found = asyncio.run(asyncio.wait_for(Depths([url]).read(), 10))

    assert (found is not None) == known


def test_the_first_relay_that_answers_counts() -> None:
    """However many before it are silent, and however long they would be."""
    with ExitStack() as stack:
        silent = [stack.enter_context(metrics("silent")) for _ in range(5)]
        there = stack.enter_context(metrics("at once"))
        found = asyncio.run(asyncio.wait_for(Depths([*silent, there]).read(), 10))

    assert found == parse(METRICS)


@pytest.mark.parametrize("value", ["9e999", "1.2.3", "e", "NaN"])
def test_a_depth_that_is_no_number_is_not_known(value: str) -> None:
    """And no error of a page."""
    with metrics("at once", METRICS.replace("12.0", value)) as url:
        found = asyncio.run(Depths([url]).read())

    assert not found or "celery" not in found


@contextmanager
def metrics(how: str, text: str = METRICS) -> Iterator[str]:
    """The address of something that answers as a relay would, or otherwise."""
    ended = Event()

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404 if how == "other" else 200)
            self.end_headers()
            with suppress(OSError):
                if how in ("at once", "other"):
                    self.wfile.write(text.encode())
                elif how == "silent":
                    ended.wait(30)
                while how == "endless":
                    self.wfile.write(b"# as much as can be\n" * 5000)
                while how == "drips" and not ended.wait(0.2):
                    self.wfile.write(b"#")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_relay_of_many_outboxes_is_one(browse: Browse, outbox: str) -> None:
    """It has one connection by which it is woken for them all, and another while it publishes.

    Nobody is told that none runs, nor that there are several.
    """
    commit_rows(outbox, 1)
    with (
        psycopg.connect(outbox, application_name="outbox-relay watch"),
        psycopg.connect(outbox, application_name="outbox-relay seat 0.1.0 aaaa.bbbbbb.cccc"),
    ):
        page = browse(outbox).get("/workers").text
        overview = browse(outbox).get("/").text

    assert [row[1] for row in rows(page)] == ["of many outboxes"]
    assert "No relay is connected" not in page
    assert re.search(r'data-number="relays">1<', overview)
