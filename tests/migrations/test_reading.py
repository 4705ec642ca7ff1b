"""Reading the views costs about what they show, on any backlog, whatever the statistics say.

Counted in rows and pages that were read, never in time; 60,000 rows stand for a million.
"""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import ClientCursor, sql

from outbox_relay.operator import queries
from servers import Postgres

Connection = psycopg.Connection[Any]

EACH = 10_000
#: What one query may touch: far less than the rows of any single state, and the pages of them.
ROWS = EACH // 10
PAGES = EACH // 4
#: How long a backlog has been: never analysed, analysed while there was nothing, and just now.
HISTORIES = ("never analysed", "analysed empty", "analysed full")

# Inserted without the trigger, which is not what is tested here. Each state lies in one stretch of
# ids, and shares its partition with another: what is wanted is always behind what is not.
MESSAGES = """
INSERT INTO outbox.message
    (message_id, task, routing_key, headers, body, content_type, content_encoding, slot)
SELECT {state} || g, 'task' || g % 3, 'celery',
       '{{"argsrepr": "(42,)", "kwargsrepr": "{{}}"}}', 'x', 'application/json', 'utf-8', {slot}
FROM generate_series(1, {count}) g
"""
OF_STATE = "FROM outbox.message WHERE message_id LIKE {state} || '%%'"
PARKED = (
    "INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)"
    " SELECT id, slot, {state}, now() + CASE {state} WHEN 'retry' THEN -id ELSE id END"
    " * interval '1 minute', 3, 'no queue is bound' "
)
WORK = {
    "sent": "INSERT INTO outbox.receipt (slot, span, ids)"
    " SELECT min(slot), int8range(min(id), max(id), '[]'), array_agg(id) ",
    "dead": PARKED,
    "retry": PARKED,
    "scheduled": PARKED,
    "lane": "INSERT INTO outbox.lane (id, slot, key) SELECT id, slot, id::text ",
    "ready": "INSERT INTO outbox.ready (id, slot) SELECT id, slot ",
}
SLOTS = {"sent": 3, "dead": 4, "retry": 4, "scheduled": 5, "lane": 5, "ready": 3}

LOOKS = (
    "SELECT * FROM outbox.{view} LIMIT 20",
    "SELECT * FROM outbox.{view} ORDER BY id LIMIT 20",
    "SELECT * FROM outbox.{view} ORDER BY id DESC LIMIT 20",
    "SELECT * FROM outbox.{view} WHERE message_id = 'sent777'",
    "SELECT * FROM outbox.{view} WHERE message_id = 'dead777'",
    "SELECT * FROM outbox.{view} WHERE message_id = 'retry777'",
    "SELECT * FROM outbox.{view} WHERE message_id = 'scheduled777'",
    "SELECT * FROM outbox.{view} WHERE message_id = 'lane777'",
    "SELECT * FROM outbox.{view} WHERE message_id = 'ready777'",
    "SELECT * FROM outbox.{view} WHERE message_id = ANY ('{{ready7,dead7,nobody}}')",
    "SELECT * FROM outbox.{view} WHERE task = 'task1' LIMIT 20",
    "SELECT * FROM outbox.{view} WHERE task = 'task1' ORDER BY id LIMIT 20",
    "SELECT * FROM outbox.{view} WHERE task = 'task1' ORDER BY id DESC LIMIT 20",
    "SELECT * FROM outbox.{view} WHERE created_at < now() ORDER BY id LIMIT 20",
)
LISTS = ("PENDING", "SCHEDULED", "DEAD", "SENT", "RESOLVE", "SHOW")
GIVEN: dict[str, Any] = {
    "task": None,
    "limit": 20,
    "ids": ["ready777", "42"],
    "message_id": "dead777",
    "row": 42,
    "body": False,
}


def fill(connection: Connection) -> None:
    """A backlog of every kind, and half of what was sent behind it."""
    connection.execute("ALTER TABLE outbox.message DISABLE TRIGGER make_work")
    for state in ("sent", "dead", "retry", "scheduled", "lane", "ready"):
        names = {"state": sql.Literal(state), "slot": SLOTS[state], "count": EACH}
        connection.execute(sql.SQL(MESSAGES).format(**names))
        statement = WORK[state] + OF_STATE + (" GROUP BY id / 500" if state == "sent" else "")
        connection.execute(sql.SQL(statement.replace("%%", "%")).format(**names))
    connection.execute("ALTER TABLE outbox.message ENABLE TRIGGER make_work")


@pytest.fixture(scope="module", params=HISTORIES)
def backlog(request: Any, postgres: Postgres, migrated_template: str) -> Iterator[Connection]:
    """A connection to a database with a backlog, and statistics of one kind."""
    url = postgres.create_database(template=migrated_template)
    with psycopg.connect(url, autocommit=True, cursor_factory=ClientCursor) as connection:
        for table in ("ready", "parked", "lane", "receipt", *(f"message_{n}" for n in range(16))):
            option = sql.SQL("ALTER TABLE outbox.{} SET (autovacuum_enabled = off)")
            connection.execute(option.format(sql.Identifier(table)))
        if request.param == "analysed empty":
            connection.execute("ANALYZE")
        fill(connection)
        if request.param == "analysed full":
            connection.execute("ANALYZE")
        yield connection
    postgres.drop_database(urlsplit(url).path.removeprefix("/"))


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def touched(connection: Connection, query: str, **given: Any) -> tuple[int, int]:
    """How many rows, and how many pages, a query really reads."""
    # Read once before: the first look at an index makes entries for the next, and costs pages.
    connection.execute(query.encode(), given or None)
    row = connection.execute(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}".encode(), given or None
    ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    read = 0.0
    for node in nodes(plan):
        if node["Node Type"].endswith("Scan") and node["Node Type"] != "Subquery Scan":
            dropped = sum(value for key, value in node.items() if key.startswith("Rows Removed"))
            read += (node["Actual Rows"] + dropped) * node["Actual Loops"]
    return round(read), plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def expensive(costs: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Those that read more than they may."""
    return {query: cost for query, cost in costs.items() if cost[0] > ROWS or cost[1] > PAGES}


@pytest.mark.parametrize("view", ["pending", "scheduled", "dead"])
def test_looking_costs_what_is_shown(backlog: Connection, view: str) -> None:
    """The first, the oldest, the newest, one message, or those of a task: never the backlog."""
    costs = {query: touched(backlog, query.format(view=view)) for query in LOOKS}

    assert expensive(costs) == {}


def test_the_newest_sent_messages_are_found_below_a_backlog(backlog: Connection) -> None:
    """And the oldest, one by its id, and those of a task: all but any twenty in no order."""
    ordered = [query for query in LOOKS if "ORDER BY" in query or "message_id" in query]

    costs = {query: touched(backlog, query.format(view="sent")) for query in ordered}

    assert expensive(costs) == {}


def test_what_is_soonest_costs_what_is_shown(backlog: Connection) -> None:
    """Though a backlog of other messages waits in the same table."""
    costs = touched(backlog, "SELECT * FROM outbox.scheduled ORDER BY available_at LIMIT 20")

    assert expensive({"soonest": costs}) == {}


def test_counts_and_lag_read_a_sample(backlog: Connection) -> None:
    """At most a thousand pages of each count; the lag is a look-up."""
    _, pages = touched(backlog, "SELECT * FROM outbox.stats")
    _, for_the_lag = touched(backlog, "SELECT oldest_pending_age FROM outbox.stats")

    assert pages < 5 * 1000
    assert for_the_lag < 100


def test_the_lag_beside_very_many_paused_messages_is_a_look_up(backlog: Connection) -> None:
    """Though all of them are older than what lags."""
    with backlog.transaction(force_rollback=True):
        backlog.execute(
            "UPDATE outbox.parked SET route = chr(30) || 'queue:mail' WHERE state = 'retry'"
            " AND id < (SELECT max(id) FROM outbox.parked WHERE state = 'retry')"
        )
        rows, pages = touched(backlog, "SELECT oldest_pending_age FROM outbox.stats")

    assert rows < 100
    assert pages < EACH // 40  # the update has left a dead entry for each, and some are read


@pytest.mark.parametrize("name", LISTS)
def test_the_commands_read_what_they_show(backlog: Connection, name: str) -> None:
    """`pending`, `scheduled`, `dead`, `sent` and `show`, of all tasks and of one."""
    query = sql.SQL(getattr(queries, name)).format(outbox=sql.Identifier("outbox"))
    text = query.as_string(backlog)

    costs = {
        str(task): touched(backlog, text, **{**GIVEN, "task": task}) for task in (None, "task1")
    }

    assert expensive(costs) == {}


@pytest.mark.parametrize("name", ["retry", "discard", "cancel"])
def test_acting_on_one_message_reads_that_message(backlog: Connection, name: str) -> None:
    """Also in the plan that is made once and kept."""
    with backlog.transaction(force_rollback=True):
        costs = {
            message_id: touched(
                backlog, f"SELECT outbox.{name}(%(message_id)s)", message_id=message_id
            )
            for message_id in ("dead77", "ready77", "lane77", "sent77")
        }

    assert expensive(costs) == {}
