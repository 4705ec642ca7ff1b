"""Two messages with one id: what a relay does to one of them never loses or changes the other."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest

from outbox_relay.core.claim import Claim, LaneClaim, RouteClaim, Turn
from outbox_relay.core.message import Message, Parking
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, commit_twin, ids_in, restored

TERM = 60.0
LARGE = 100_000
TURN = Turn([], 0, 100, 1, TERM, LaneClaim(0, 100))


def claim(store: Store, turn: Turn = TURN) -> list[Message]:
    """What a turn claims, from lanes and from among what waits for its route as well."""
    reply = store.round_trip(None, turn)
    rows = [*reply.heads, *reply.rows, *(row for row, _ in reply.waited)]
    fetched = store.round_trip(Claim(rows, turn.claim_id, 0.0), None).fetched
    assert fetched is not None
    return fetched.messages


def settle(store: Store, messages: list[Message]) -> None:
    """They were confirmed."""
    assert store.round_trip(None, Turn(messages, 0, 0, 99, TERM)).unsettled == []


def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement, and return its rows if it has any."""
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_large_message_is_published_with_its_own_body(
    emptied_database: str, store: Store
) -> None:
    """Also where one claimed with it is in the slot of the other."""
    url = emptied_database
    first, beside = commit_rows(url, 2, body=b"a" * LARGE)
    settle(store, [m for m in claim(store) if m.message_id == first])
    twin = commit_twin(url, first, body=b"b" * LARGE)
    run(url, "UPDATE outbox.ready SET lease_until = '-infinity'")
    for table in ("message", "ready"):
        run(
            url,
            f"UPDATE outbox.{table} SET slot = (slot + 1) % 16"
            f" WHERE id = (SELECT id FROM outbox.message WHERE message_id = '{beside}')",
        )

    found = {m.message_id: m.body for m in claim(store, replace(TURN, claim_id=2))}

    assert found == {twin: b"b" * LARGE, beside: b"a" * LARGE}


def test_both_are_refused(emptied_database: str, store: Store) -> None:
    """No two can be parked under one id: the second gets a new one, and all that is known of it."""
    (first,) = commit_rows(emptied_database)
    store.park([Parking(message, "dead", 1, 0, 0.0, "why") for message in claim(store)])
    twin = commit_twin(emptied_database, first)
    commit_rows(emptied_database)
    refused = claim(store, replace(TURN, claim_id=2))

    assert store.park([Parking(each, "dead", 9, 1, 0.0, "no") for each in refused]) == set()

    rows = run(
        emptied_database, "SELECT id, message_id, attempts, last_error FROM outbox.dead ORDER BY 1"
    )
    assert len({row[0] for row in rows}) == len(rows) == 3
    assert {row[1:] for row in rows} >= {(first, 1, "why"), (twin, 9, "no")}
    assert run(emptied_database, f"SELECT outbox.retry('{twin}')") == [(1,)]
    assert [m.message_id for m in claim(store, replace(TURN, claim_id=3))] == [twin]


@pytest.mark.parametrize("key", [None, "k"], ids=["alone", "in a lane"])
def test_what_is_due_waits_for_its_twin(
    emptied_database: str, store: Store, key: str | None
) -> None:
    """It keeps its place and its time until the other is sent."""
    (first,) = commit_rows(emptied_database, available_in=3600, ordering_key=key)
    twin = commit_twin(emptied_database, first, ordering_key=key)
    run(emptied_database, "UPDATE outbox.parked SET available_at = now() - interval '30 days'")

    assert store.promote(10) == 0
    assert ids_in(emptied_database, "pending") == {first, twin}
    assert run(emptied_database, "SELECT count(*) FROM outbox.parked") == [(1,)]

    settle(store, claim(store))
    assert store.promote(10) == 1
    assert [m.message_id for m in claim(store, replace(TURN, claim_id=2))] == [first]


def test_what_waits_for_its_route_waits_for_its_twin(emptied_database: str, store: Store) -> None:
    """The route takes messages again; the other one is first."""
    (first,) = commit_rows(emptied_database)
    (held,) = claim(store)
    store.park([Parking(held, "retry", 0, 0, 3600.0, "why", route="r")])
    twin = commit_twin(emptied_database, first)
    turn = replace(TURN, limit=0, routes=RouteClaim(("r",), (10,)))

    assert claim(store, replace(turn, claim_id=2)) == []
    (before,) = claim(store, replace(TURN, claim_id=3))
    assert before.message_id == twin
    settle(store, [before])
    assert [m.message_id for m in claim(store, replace(turn, claim_id=4))] == [first]


def test_the_first_of_a_lane_waits_for_its_twin(emptied_database: str, store: Store) -> None:
    """The news of its key is kept until then."""
    (first,) = commit_rows(emptied_database, ordering_key="k")
    twin = commit_twin(emptied_database, first)

    (before,) = claim(store)
    assert before.message_id == twin
    settle(store, [before])
    assert [m.message_id for m in claim(store, replace(TURN, claim_id=2))] == [first]


def test_both_expire(emptied_database: str, store: Store) -> None:
    """Each has an ending of its own: neither is taken for one without, and published."""
    (first,) = commit_rows(emptied_database, expires_in=-1)
    store.expire(claim(store))
    twin = commit_twin(emptied_database, first, expires_in=-1)
    store.expire(claim(store, replace(TURN, claim_id=2)))

    assert ids_in(emptied_database, "expired") == {first, twin}
    assert restored(emptied_database) == 0


def test_what_was_confirmed_is_forgotten_beside_its_twin(
    emptied_database: str, store: Store
) -> None:
    """With a retention of 0; the other keeps its message."""
    (first,) = commit_rows(emptied_database)
    twin = commit_twin(emptied_database, first, available_in=3600)
    sent = claim(store)
    settle(store, sent)

    store.forget(sent)

    assert run(emptied_database, "SELECT message_id FROM outbox.message") == [(twin,)]
