"""A database that is killed, frozen, empty or of before: said within seconds, and got over."""

import json
from collections.abc import Iterator
from time import monotonic

import httpx
import psycopg
import pytest

from outbox_migrations import grant, upgrade
from servers import Postgres
from tests.console.conftest import Browse, Browser
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.waiting import wait_until

#: What the console promises, and what a loaded machine may add.
SOON = 5.0
SLACK = 3.0
PAGES = ("/messages", "/failures", "/routes", "/workers", "/actions", "/find?id=1")


@pytest.fixture
def server(own_postgres: OwnPostgres) -> Postgres:
    """A server of the test's own."""
    return own_postgres({})


def said(browser: Browser, path: str) -> tuple[int, str, float]:
    """The status of a page, its text, and how long it took."""
    began = monotonic()
    page = browser.get(path)
    return page.status_code, page.text, monotonic() - began


def comes_back(browser: Browser) -> None:
    """The pages are there again, without anybody having done anything to the console."""
    for path in ("/", *PAGES[:-1]):
        wait_until(lambda path=path: browser.get(path).status_code == 200, 20, path)  # type: ignore[misc]


def test_a_killed_database_is_said_and_comes_back(server: Postgres, browse: Browse) -> None:
    """On each page, by the stream as well, and never as a traceback."""
    url = migrated_database(server)
    grant(url)
    browser = browse(url)
    assert browser.get("/").status_code == 200
    server.kill()

    answers = [said(browser, path) for path in PAGES]
    assert {(status, "cannot be reached" in text) for status, text, _ in answers} == {(503, True)}
    assert max(took for *_, took in answers) < SOON + SLACK
    assert _problem(browser) == "The database cannot be reached"
    server.start()
    comes_back(browser)


def test_a_frozen_database_is_said_and_comes_back(server: Postgres, browse: Browse) -> None:
    """Its port still takes connections, and nothing is ever answered."""
    url = migrated_database(server)
    grant(url)
    browser = browse(url)
    assert browser.get("/").status_code == 200
    with server.frozen():
        answers = [said(browser, path) for path in PAGES[:2]]
        assert {status for status, *_ in answers} == {503}
        assert max(took for *_, took in answers) < SOON + SLACK
        assert _problem(browser)
    comes_back(browser)


def test_a_missing_schema_is_said_and_comes_back(empty_database: str, browse: Browse) -> None:
    """With the command that makes it."""
    browser = browse(empty_database)
    answers = [said(browser, path) for path in ("/", *PAGES)]

    assert {status for status, *_ in answers} == {503}
    assert [text for _, text, _ in answers if "outbox-migrate" not in text] == []
    upgrade(empty_database)
    grant(empty_database)
    comes_back(browser)


def test_a_schema_of_before_is_said(database: str, browse: Browse) -> None:
    """What the console asks for is not all there: the page says to migrate."""
    grant(database)
    with psycopg.connect(database) as connection:
        connection.execute("DROP TABLE outbox.action")
        connection.execute("ALTER VIEW outbox.stats RENAME COLUMN expired TO gone")
    browser = browse(database)

    for path in ("/", "/actions"):
        status, text, _ = said(browser, path)
        assert (status, "outbox-migrate up" in text) == (503, True)


def test_a_login_without_the_role_is_told_which(database: str, browse: Browse) -> None:
    """The sentence names the role to grant."""
    grant(database)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS stranger")
        admin.execute("CREATE ROLE stranger LOGIN PASSWORD 'p'")
    url = httpx.URL(database)
    stranger = f"postgresql://stranger:p@{url.host}:{url.port}{url.path}"
    try:
        status, text, _ = said(browse(stranger, "viewer"), "/messages")
    finally:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("DROP ROLE stranger")

    assert (status, "GRANT outbox_viewer TO" in text) == (403, True)


def _problem(browser: Browser) -> str:
    """What the stream of events tells within the time promised."""

    def beats() -> Iterator[dict[str, object]]:
        with browser.stream("GET", "/events") as stream:
            for line in stream.iter_lines():
                if line:
                    yield json.loads(line.removeprefix("data: "))

    began = monotonic()
    for told in beats():
        if isinstance(told.get("problem"), list):
            return str(told["problem"][0])  # type: ignore[index]
        assert monotonic() - began < SOON + SLACK, told
    raise AssertionError("the stream ended")
