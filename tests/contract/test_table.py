"""The table is the contract: what producer, relay and worker say to it, the schema answers.

The four never import one another: nothing but these tests keeps their SQL and the schema in step.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import psycopg
import pytest
from psycopg import sql

import celery_inbox.store
import celery_outbox.statements.insert
from celery_outbox.statements.insert import Insert
from outbox_migrations import grant
from outbox_relay.postgres import (
    chores,
    holds,
    home,
    orphans,
    replays,
    session,
    statements,
    waiting,
    workers,
)
from outbox_relay.postgres.database import SESSION
from outbox_relay.postgres.session import SCHEMA_VERSIONS
from outbox_relay.postgres.statement import Statement
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows

Connection = psycopg.Connection[Any]

#: Statements of the loop, with parameters as the relay would give them.
HELD = {"ids": "{1,2,3}", "claim_ids": "{1,1,1}"}
LOOP: dict[str, dict[str, Any]] = {
    "SETTLE": {"ids": "{1,2,3}", "claim_id": 1, "lease_seconds": 10.0},
    "SETTLE_LATE": {
        "ids": [1, 2, 3],
        "slots": [3, 3, 3],
        "message_ids": ["a", "b", "c"],
        "ages": [1.0, 1.0, 1.0],
    },
    "CLAIM": {"floor": 0, "limit": 500, "claim_id": 1, "lease_seconds": 10.0},
    "PROBE": {"floor": 0, "above": 0},
    "FETCH": {"slot": 3, "ids": "{1,2,3}", "claim_id": 1, "small": 1 << 15, "clock": 1.0},
    "FETCH_LARGE": {"slots": "{3,3,4}", "ids": "{1,2,3}", "bytes": 1 << 24, "limit": 1 << 27},
    "EXPIRE": {"ids": "{1,2}", "claim_ids": "{1,1}", "attempts": "{0,0}", "error": "why"},
    "PARK": {
        "ids": [1],
        "claim_ids": [1],
        "states": ["retry"],
        "attempts": [1],
        "suspicions": [0],
        "delays": [1.0],
        "errors": ["why"],
        "routes": [None],
        "ranks": [0],
    },
    "CLAIM_WAITING": {
        "routes": "{mail}",
        "limits": "{100}",
        "by_age": "{f}",
        "claim_id": 1,
        "lease_seconds": 10.0,
    },
    "ROUTES": {"above": "", "limit": 1000},
    "PROMOTE": {"limit": 1000},
    "SET_APART": {"error": "why"},
    "RELEASE": {**HELD, "suspicion": 1},
    "RENEW": {**HELD, "lease_seconds": 10.0},
    "DROP_ORPHANS": HELD,
    "PARK_DETACHED": {**HELD, "delay": 1.0},
    "HOLDS": {},
    "ENDLESS": {},
    "WAKE": {"above": 0, "limit": 1000},
    "SENT_BEFORE": {"ids": [1, 2, 3], "slots": [3, 3, 4], "ages": [1.0, 1.0, 1.0]},
}
#: Every statement there is.
STATEMENTS = {
    name: each
    for module in (session, statements, orphans, chores, holds, home, waiting, workers, replays)
    for name, each in vars(module).items()
    if isinstance(each, Statement)
}
#: These call functions or views, set the session up, or stop at the first row there is.
SELDOM = {
    "VERSION",
    "HISTORY",
    "FORGET",
    "PURGE",
    "RESTORE_WORK",
    "STATS",
    "UPKEEP",
    "LEFT",
    "CLAIM_LANES",
    "RECENT_ROUTES",
    "LOCK",
    "HELD",
    "TAKE_TOKENS",
    "BRING_HOME",
}
#: What each statement may not read from end to end: everything but a short array of its own.
TABLES = re.compile(r"^(ready|parked|lane|receipt|message(_\d+)?)$")


def as_the_relay(connection: Connection) -> None:
    """Set the session up as the store does."""
    connection.execute(SESSION, {"timeout_ms": "10000", "name": "test"})


def plan(connection: Connection, name: str) -> dict[str, Any]:
    """How the database would carry a statement of the relay out, whatever its parameters."""
    text = STATEMENTS[name].in_schema("outbox").text
    with connection.transaction(force_rollback=True):
        row = connection.execute(f"EXPLAIN (FORMAT JSON) {text}".encode(), LOOP[name]).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0][0]["Plan"]
    return found


def nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield tree
    for child in tree.get("Plans", []):
        yield from nodes(child)


def sequential(tree: dict[str, Any]) -> list[str]:
    """Tables a plan would read otherwise than by looking up keys in an index, and how."""
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in nodes(tree)
        if TABLES.match(node.get("Relation Name", ""))
        and node["Node Type"] not in ("ModifyTable", "LockRows")
        and not (node["Node Type"].startswith("Index") and "Index Cond" in node)
    ]


@pytest.fixture(scope="module")
def histories(postgres: Any, migrated_template: str) -> dict[str, str]:
    """The schema with statistics of every kind: none, and right and wrong ones."""
    urls = {
        name: postgres.create_database(template=migrated_template)
        for name in ("never analysed", "analysed empty", "analysed full", "emptied since")
    }
    for name in ("analysed full", "emptied since"):
        commit_rows(urls[name], 20_000)
        commit_rows(urls[name], 5_000, available_in=3600)
    for name, url in urls.items():
        with psycopg.connect(url, autocommit=True) as connection:
            if name != "never analysed":
                connection.execute("VACUUM ANALYZE")
            if name == "emptied since":
                connection.execute("DELETE FROM outbox.ready")
                connection.execute("DELETE FROM outbox.message")
    return urls


HISTORIES = ["never analysed", "analysed empty", "analysed full", "emptied since"]


@pytest.mark.parametrize(("name", "history"), [*product(LOOP, HISTORIES)])
def test_no_statement_of_the_loop_reads_a_table_from_end_to_end(
    histories: dict[str, str], name: str, history: str
) -> None:
    """Index look-ups only, whatever the statistics say: also of the plan that is kept for all."""
    with psycopg.connect(histories[history], autocommit=True) as connection:
        as_the_relay(connection)
        for mode in ("force_custom_plan", "force_generic_plan"):
            connection.execute(f"SET plan_cache_mode = {mode}".encode())
            assert sequential(plan(connection, name)) == [], (name, history, mode)


def test_every_statement_of_the_loop_is_known_here() -> None:
    """A new statement has to be looked at, too."""
    assert STATEMENTS.keys() - LOOP.keys() == SELDOM


def test_the_relay_knows_this_version(database: str) -> None:
    """The schema the migrations make is one the relay works with."""
    store = Store.connect(database, "outbox", statement_timeout=5)
    store.close()
    with psycopg.connect(database) as connection:
        (version,) = connection.execute("SELECT outbox.version()").fetchone() or (None,)
    assert version in SCHEMA_VERSIONS


def columns(connection: Connection, table: str) -> dict[str, bool]:
    """The columns of a table, and whether each can be left out."""
    rows = connection.execute(
        "SELECT attname, NOT attnotnull OR atthasdef OR attidentity <> ''"
        " FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
        [table],
    )
    return dict(rows.fetchall())


def inserted(module: object, table: str) -> list[set[str]]:
    """The columns each INSERT into a table names, in the text of a module's constants."""
    constants = list(vars(module).values())
    constants += [v for c in constants if isinstance(c, Insert) for v in vars(c).values()]
    texts = [value for value in constants if isinstance(value, str)]
    pattern = rf"INSERT INTO\s+[^\s(]*{table}\s*\(([^)]*)\)"
    found = [match for text in texts for match in re.findall(pattern, text)]
    return [{name.strip() for name in names.split(",")} for names in found]


def test_the_producers_columns_exist_and_are_all_it_needs(database: str) -> None:
    """What it inserts is there; what it leaves out has a default."""
    statements_found = inserted(celery_outbox.statements.insert, "message")
    assert statements_found
    with psycopg.connect(database) as connection:
        there = columns(connection, "outbox.message")
    for names in statements_found:
        assert names <= there.keys()
        assert all(optional for name, optional in there.items() if name not in names)


def test_the_workers_columns_exist_and_are_all_it_needs(database: str) -> None:
    """The same, of the inbox."""
    statements_found = inserted(celery_inbox.store, "processed")
    assert statements_found
    with psycopg.connect(database) as connection:
        there = columns(connection, "inbox.processed")
    for names in statements_found:
        assert names <= there.keys()
        assert all(optional for name, optional in there.items() if name not in names)


def test_the_producers_columns_are_what_its_role_may_write(database: str) -> None:
    """The grant names them one by one: one too few, and every producer with the role fails."""
    grant(database)
    with psycopg.connect(database) as connection:
        query = sql.SQL("SELECT has_column_privilege('outbox_producer', {}, %s, 'INSERT')")
        for names in inserted(celery_outbox.statements.insert, "message"):
            for name in names:
                row = connection.execute(
                    query.format(sql.Literal("outbox.message")), [name]
                ).fetchone()
                assert row == (True,), name
