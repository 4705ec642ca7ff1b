"""A console that listens on a real port, and somebody who browses it and sends its forms."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from html.parser import HTMLParser
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from psycopg.sql import SQL, Identifier
from starlette.types import ASGIApp

from outbox_console import create_app
from outbox_migrations import grant
from servers import Postgres
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until

#: Stands in arguments, headers, properties and bodies, and must reach nobody without the right.
SECRET = "tok_4242_secret"

PAYLOAD: dict[str, Any] = {
    "headers": f'{{"task": "shop.bill", "argsrepr": "({SECRET!r},)", "kwargsrepr": "{{}}"}}',
    "properties": f'{{"delivery_mode": 2, "correlation_id": "{SECRET}"}}',
    "body": f'[["{SECRET}"], {{}}, {{}}]'.encode(),
    "declare": f'[{{"queue": "{SECRET}"}}]',
}
_WORK = ("ready", "parked", "lane", "lane_news", "dedup")
_TABLES = (*_WORK, "receipt", "expiry", "progress", "action", "message")
_BURY = """
WITH gone AS (DELETE FROM outbox.ready WHERE id IN (
    SELECT m.id FROM outbox.message m WHERE m.message_id = ANY (%s)) RETURNING id, slot)
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
SELECT id, slot, 'dead', now(), 10, %s FROM gone
"""
_CONFIRM = """
WITH gone AS (DELETE FROM outbox.ready WHERE id IN (
    SELECT m.id FROM outbox.message m WHERE m.message_id = ANY (%s)) RETURNING id, slot)
INSERT INTO outbox.receipt (slot, span, ids)
SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id) FROM gone GROUP BY slot
"""
_EXPIRE = """
WITH gone AS (DELETE FROM outbox.ready WHERE id IN (
    SELECT m.id FROM outbox.message m WHERE m.message_id = ANY (%s)) RETURNING id, slot)
INSERT INTO outbox.expiry (id, slot) SELECT id, slot FROM gone
"""


class Browser(httpx.Client):
    """Keeps cookies, follows redirects, and fills in the forms of pages."""

    def submit(
        self, page: httpx.Response, action: str, button: str, **fields: Any
    ) -> httpx.Response:
        """Send the form of a page that goes to `action`, with its hidden fields and these."""
        found = [form for form in forms(page.text) if form["action"].endswith(action)]
        assert found, page.text
        data = {**found[0]["fields"], "action": button, **fields}
        return self.post(found[0]["action"], data=data)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append({"action": values.get("action", ""), "fields": {}})
        if tag == "input" and values.get("type") == "hidden" and self.found:
            fields = self.found[-1]["fields"]
            fields.setdefault(values["name"], []).append(values.get("value", ""))


def forms(text: str) -> list[dict[str, Any]]:
    """The forms of a page: where each goes, and its hidden fields."""
    parser = _Forms()
    parser.feed(text)
    return parser.found


def bury(url: str, message_ids: list[str], reason: str = "NO_ROUTE: no queue is bound") -> None:
    """Make messages dead."""
    _run(url, _BURY, message_ids, reason)


def confirm(url: str, message_ids: list[str]) -> None:
    """Make messages sent."""
    _run(url, _CONFIRM, message_ids)


def expire(url: str, message_ids: list[str]) -> None:
    """Make messages expired."""
    _run(url, _EXPIRE, message_ids)


def _run(url: str, statement: str, *parameters: Any) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode(), parameters)


@pytest.fixture(scope="session")
def granted(postgres: Postgres, migrated_template: str) -> str:
    """The URL of a migrated database whose roles have their rights."""
    url = postgres.create_database(template=migrated_template)
    grant(url)
    return url


@pytest.fixture
def outbox(granted: str) -> str:
    """The same without a row, and ids from 1 on: quicker than a clone for each test."""
    with psycopg.connect(granted) as connection:
        connection.execute("SET session_replication_role = replica")
        for table in _TABLES:
            connection.execute(SQL("DELETE FROM outbox.{}").format(Identifier(table)))
        connection.execute("SELECT setval('outbox.message_id_seq', 1, false)")
    return granted


@pytest.fixture
def ten(outbox: str) -> str:
    """Ten messages: two in each state."""
    commit_rows(outbox, 2, **PAYLOAD)
    commit_rows(outbox, 2, available_in=3600, **PAYLOAD)
    bury(outbox, commit_rows(outbox, 2, **PAYLOAD))
    confirm(outbox, commit_rows(outbox, 2, **PAYLOAD))
    expire(outbox, commit_rows(outbox, 2, **PAYLOAD))
    return outbox


@contextmanager
def served(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """The address of an application that listens for the time of the block."""
    config = uvicorn.Config(
        app, port=port, log_level="error", access_log=False, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 20, "the console's start")
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


Browse = Callable[..., Browser]


@pytest.fixture
def visit() -> Iterator[Callable[..., Browser]]:
    """Serve an application, and browse it: ``visit(app, auth=("ada", "password"))``."""
    with ExitStack() as stack:

        def start(app: ASGIApp, **options: Any) -> Browser:
            address = stack.enter_context(served(app))
            options = {"timeout": 20, "follow_redirects": True, **options}
            return stack.enter_context(Browser(base_url=address, **options))

        yield start


@pytest.fixture
def browse(visit: Callable[..., Browser]) -> Browse:
    """Browse the console of a database: ``browse(url, "viewer")``."""

    def start(url: str, role: str = "operator-with-payload", **options: Any) -> Browser:
        return visit(create_app(database_url=url, role=role), **options)

    return start
