"""Every query of docs/queries.md runs, as the role that the page names, and shows something."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from outbox_migrations import grant
from servers import Postgres
from tests.deploy.board import ROOT
from tests.fixtures.rows import commit_rows

#: The message that the page asks after.
MESSAGE = "8c8bd5b1-6f05-4d29-9f79-5b8f0f5a3a5e"
#: Nothing of the kind is there in a test.
EMPTY = {"backend_start", "pg_prepared_xacts", "backend_xid"}


def queries() -> list[tuple[str, str]]:
    """Role and statement of every block of SQL."""
    found = []
    for section in (ROOT / "docs/queries.md").read_text().split("\n## ")[1:]:
        role = re.findall(r"Role: `(\w+)`", section)[0]
        found += [(role, query) for query in re.findall(r"```sql\n(.*?)```", section, re.DOTALL)]
    return found


@pytest.fixture(scope="module")
def stocked(postgres: Postgres, migrated_template: str) -> Iterator[str]:
    """A database with messages in every state, and the roles."""
    url = postgres.create_database(template=migrated_template)
    grant(url)
    commit_rows(url, 3)
    commit_rows(url, 2, available_in=3600)
    commit_rows(url, 4, message_ids=[f"sent{n}" for n in range(4)])
    commit_rows(url, message_ids=[MESSAGE])
    commit_rows(url, message_ids=["refused"])
    with psycopg.connect(url) as admin:
        admin.execute(
            "WITH done AS (DELETE FROM outbox.ready r USING outbox.message m"
            "  WHERE m.id = r.id AND m.message_id LIKE 'sent%' RETURNING r.id, r.slot)"
            " INSERT INTO outbox.receipt (slot, span, ids)"
            " SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM done GROUP BY 1"
        )
        for message_id, state in ((MESSAGE, "dead"), ("refused", "retry")):
            admin.execute(
                "WITH done AS (DELETE FROM outbox.ready r USING outbox.message m"
                "  WHERE m.id = r.id AND m.message_id = %s RETURNING r.id, r.slot)"
                " INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)"
                " SELECT id, slot, %s, now() + interval '1 hour', 3, 'no queue' FROM done",
                [message_id, state],
            )
    yield url
    postgres.drop_database(urlsplit(url).path.removeprefix("/"))


@pytest.mark.parametrize(
    ("role", "query"), queries(), ids=[re.sub(r"\W+", " ", q)[:40] for _, q in queries()]
)
def test_a_query_of_the_page_runs(stocked: str, role: str, query: str) -> None:
    """As that role, and, but for what a test does not have, with an answer."""
    with psycopg.connect(stocked) as connection:
        connection.execute(SQL("SET ROLE {}").format(Identifier(role)))
        rows: list[Any] = connection.execute(query.encode()).fetchall()
        connection.rollback()

    if not any(word in query for word in EMPTY):
        assert rows
    if "outbox.retry" in query or "outbox.discard" in query:
        assert rows == [(1,)]
    if "outbox.replay(" in query:
        assert rows == [(4,)]
