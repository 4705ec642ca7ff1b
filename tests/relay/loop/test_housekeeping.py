"""No chore keeps a claim from happening, whatever it meets."""

import threading
from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
import structlog
from structlog.testing import capture_logs

from outbox_relay.core.claim import Turn
from outbox_relay.errors import StoreLost
from outbox_relay.loop import retention as retention_module
from outbox_relay.loop.housekeeping import MAX_PROMOTED, MIN_PROMOTED, Housekeeping
from outbox_relay.loop.retention import Retention
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """The session of a relay."""
    store = Store.connect(database, "outbox", statement_timeout=5)
    yield store
    store.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is logged is looked at, not printed."""
    yield
    structlog.reset_defaults()


def housekeeping() -> Housekeeping:
    """All chores are due at once, but for retention; nothing is counted."""
    return Housekeeping(Retention(lambda: (0, 0), now=0.0))


def run(database: str, statement: LiteralString) -> None:
    """As the owner of the tables."""
    with psycopg.connect(database) as connection:
        connection.execute(statement)


def test_a_row_that_cannot_be_promoted_is_set_apart(database: str, store: Store) -> None:
    """All others that are due go on; this one is dead, with its reason."""
    first, *others = commit_rows(database, 9, available_in=3600)
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT id FROM outbox.message WHERE message_id = %s", [first]
        ).fetchone()
        assert row is not None
        connection.execute(
            f"ALTER TABLE outbox.ready ADD CONSTRAINT nasty CHECK (id <> {row[0]})".encode()
        )
        connection.execute(
            "UPDATE outbox.parked SET available_at = now() - id * interval '1 second'"
        )
    chores = housekeeping()

    with capture_logs() as logged:
        for now in range(10, 20):
            chores.do(store, float(now))

    assert states(database) == {"pending": len(others), "scheduled": 0, "sent": 0, "dead": 1}
    assert [line["message_id"] for line in logged if line["event"] == "message_set_apart"] == [
        first
    ]
    with psycopg.connect(database) as connection:
        reason = connection.execute("SELECT last_error FROM outbox.dead").fetchone()
    assert reason is not None
    assert "nasty" in reason[0]


def test_what_is_due_by_the_thousand_is_promoted_in_portions(
    database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some at a time, however many are due at one moment; between two portions claims go on."""
    commit_rows(database, 3000, available_in=3600)
    run(database, "UPDATE outbox.parked SET available_at = now()")
    promoted: list[int] = []

    def promote(limit: int) -> int:
        promoted.append(Store.promote(store, limit))
        return promoted[-1]

    monkeypatch.setattr(store, "promote", promote)
    chores = housekeeping()
    claimed: list[int] = []

    for now in range(10, 20):
        chores.do(store, float(now))
        claimed.append(len(store.round_trip(None, Turn([], 0, 5000, now, 60)).rows))

    assert promoted[0] == MIN_PROMOTED
    assert max(promoted) <= MAX_PROMOTED
    assert sum(promoted) == 3000
    assert claimed == promoted


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE outbox.parked RENAME TO aside",
        "ALTER TABLE outbox.parked RENAME COLUMN available_at TO due_at",
    ],
    ids=["missing", "changed"],
)
def test_a_chore_that_fails_is_logged_and_the_store_lives(
    database: str, store: Store, statement: LiteralString
) -> None:
    """It names itself once a minute; claims go on in the same session."""
    run(database, statement)
    chores = housekeeping()

    with capture_logs() as logged:
        for now in range(10, 40):
            chores.do(store, float(now))

    failures = [line for line in logged if line["event"] == "chore_failed"]
    assert [line["chore"] for line in failures] == ["promote"]
    commit_rows(database)
    assert len(store.round_trip(None, Turn([], 0, 10, 1, 60)).rows) == 1


def test_retention_runs_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once at a time, however long it takes; that it failed is logged, and it is tried again."""
    monkeypatch.setattr(retention_module, "PURGE_EVERY", 1.0)
    begun, let_go = [0], threading.Event()

    def tidy() -> tuple[int, int]:
        begun[0] += 1
        let_go.wait(10)
        raise StoreLost("it takes too long")

    retention = Retention(tidy, now=0.0)
    with capture_logs() as logged:
        for now in (0.5, 1.5, 3.0, 5.0):
            retention.begin_if_due(now)
        wait_until(lambda: begun == [1], 10, "the first run")
        let_go.set()
        wait_until(lambda: any(e["event"] == "chore_failed" for e in logged), 10, "a line")
        wait_until(lambda: not retention.running, 10, "its end")
        retention.begin_if_due(9.0)
        wait_until(lambda: begun == [2] and not retention.running, 10, "the second run")
