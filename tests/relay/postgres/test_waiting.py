"""What waits is let go by its rank or by its age, and a claim of a few reads a few of very many."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from outbox_relay.core.claim import RouteClaim, Turn
from outbox_relay.core.message import Parking
from outbox_relay.postgres import waiting
from outbox_relay.postgres.database import SESSION
from outbox_relay.postgres.store import Store
from outbox_relay.postgres.waiting import CLAIM_WAITING
from tests.fixtures.rows import commit_rows
from tests.relay.messages import a_message

TERM = 60.0
VERY_MANY = 20_000


def hold(store: Store, database: str, ranks: list[int], route: str = "r") -> list[int]:
    """Messages that wait for a route, with these ranks; their ids in that order."""
    commit_rows(database, len(ranks))
    rows = sorted(store.round_trip(None, Turn([], 0, len(ranks), 1, TERM)).rows)
    store.park(
        [
            Parking(a_message(id=row.id, claim_id=1), "retry", 0, 0, 3600.0, "why", route, rank)
            for row, rank in zip(rows, ranks, strict=True)
        ]
    )
    return [row.id for row in rows]


def claim(store: Store, routes: RouteClaim, number: int = 2) -> list[int]:
    """The ids that are let go."""
    reply = store.round_trip(None, Turn([], 0, 0, number, TERM, routes=routes))
    return sorted(row.id for row, _ in reply.waited)


def test_the_most_urgent_are_let_go_first(store: Store, emptied_database: str) -> None:
    """Among equals the oldest; and every one of them in the end."""
    ids = hold(store, emptied_database, [0, -9, 0, -9, 3, -1])

    taken = [claim(store, RouteClaim(("r",), (2,)), number) for number in (2, 3, 4)]

    assert taken == [[ids[1], ids[3]], [ids[0], ids[5]], [ids[2], ids[4]]]


def test_those_that_waited_longest_have_their_turn(store: Store, emptied_database: str) -> None:
    """Of the routes that are named for it, and of no others."""
    old = hold(store, emptied_database, [5, 5, -9])
    other = hold(store, emptied_database, [5, 5, -9], "other")

    taken = claim(store, RouteClaim(("other", "r"), (1, 2), frozenset({"r"})))

    assert taken == [old[0], old[1], other[2]]


@pytest.mark.parametrize("by_age", ["t", "f"])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("analysed", [True, False])
def test_a_claim_of_a_few_reads_a_few(
    emptied_database: str, by_age: str, mode: str, analysed: bool
) -> None:
    """Of very many that wait for the same, with every rank; nothing is sorted."""
    asked = {
        "routes": "{r}", "limits": "{10}", "by_age": f"{{{by_age}}}",
        "claim_id": 2, "lease_seconds": TERM,
    }  # fmt: skip
    with psycopg.connect(emptied_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO outbox.parked (id, slot, state, available_at, route, rank)"
            " SELECT n, 0, 'retry', now() + interval '1 day', 'r', n %% 10"
            " FROM generate_series(1, %s) n",
            [VERY_MANY],
        )
        if analysed:
            connection.execute("ANALYZE outbox.parked")
        connection.execute(SESSION, {"timeout_ms": "10000", "name": "test"})
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        text = CLAIM_WAITING.in_schema("outbox").text
        with connection.transaction(force_rollback=True):
            row = connection.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {text}".encode(), asked
            ).fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])

    nodes = [*_nodes(plan[0]["Plan"])]
    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes
        if node.get("Relation Name") in ("parked", "ready") and "Scan" in node["Node Type"]
    )
    assert read < 100
    assert not [node for node in nodes if "Sort" in node["Node Type"]]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def test_of_many_routes_all_are_named_in_turn(
    store: Store, emptied_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long those that are named first have messages waiting."""
    monkeypatch.setattr(waiting, "MAX_ROUTES", 2)
    routes = [f"route {n}" for n in range(5)]
    for route in routes:
        hold(store, emptied_database, [0], route)

    assert [store.waiting_routes() for _ in range(4)] == [
        routes[:2],
        routes[2:4],
        routes[4:],
        routes[:2],
    ]
