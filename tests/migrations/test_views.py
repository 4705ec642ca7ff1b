"""Every message kept is in exactly one of pending, scheduled, sent and dead; stats agree."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.rows import commit_rows, insert_rows

VIEWS = ("pending", "scheduled", "sent", "dead")
#: One way of getting a message into each of the states, as relays and people would.
TREATMENTS: dict[str, tuple[str, str]] = {
    "new": ("pending", "SELECT 1"),
    "claimed": (
        "pending",
        "UPDATE outbox.ready SET claim_id = 1, lease_until = 'infinity' {where}",
    ),
    "confirmed": (
        "sent",
        "WITH done AS (DELETE FROM outbox.ready {where} RETURNING id, slot)"
        " INSERT INTO outbox.receipt (slot, span, ids)"
        " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done",
    ),
    "refused": (
        "pending",
        "WITH failed AS (DELETE FROM outbox.ready {where} RETURNING id, slot)"
        " INSERT INTO outbox.parked (id, slot, state, available_at, last_error)"
        " SELECT id, slot, 'retry', now() + interval '1 hour', 'why' FROM failed",
    ),
    "given up": (
        "dead",
        "WITH failed AS (DELETE FROM outbox.ready {where} RETURNING id, slot)"
        " INSERT INTO outbox.parked (id, slot, state, available_at, last_error)"
        " SELECT id, slot, 'dead', now(), 'why' FROM failed",
    ),
    "held": (
        "scheduled",
        "WITH held AS (DELETE FROM outbox.ready {where} RETURNING id, slot)"
        " INSERT INTO outbox.parked (id, slot, state, available_at)"
        " SELECT id, slot, 'scheduled', now() + interval '1 hour' FROM held",
    ),
    "due by now": (
        "pending",
        "WITH held AS (DELETE FROM outbox.ready {where} RETURNING id, slot)"
        " INSERT INTO outbox.parked (id, slot, state, available_at)"
        " SELECT id, slot, 'scheduled', now() - interval '1 hour' FROM held",
    ),
}
WHERE = "WHERE id IN (SELECT id FROM outbox.message WHERE message_id = %(message_id)s)"


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example rolls back
)
@given(treatments=st.lists(st.sampled_from(sorted(TREATMENTS)), max_size=12))
def test_the_views_are_disjoint_and_complete(emptied_database: str, treatments: list[str]) -> None:
    """Whatever became of each message, it is shown once, and where it belongs."""
    expected: dict[str, set[str]] = {view: set() for view in VIEWS}
    with psycopg.connect(emptied_database) as connection:
        for treatment in treatments:
            view, statement = TREATMENTS[treatment]
            (message_id,) = insert_rows(connection)
            connection.execute(statement.format(where=WHERE).encode(), {"message_id": message_id})
            expected[view].add(message_id)

        shown = {
            view: {m for (m,) in connection.execute(f"SELECT message_id FROM outbox.{view}")}
            for view in VIEWS
        }
        stats = connection.execute("SELECT pending, scheduled, dead FROM outbox.stats").fetchone()
        connection.rollback()

    assert shown == expected
    assert stats == tuple(len(expected[view]) for view in ("pending", "scheduled", "dead"))


PROMISED = ["id", "message_id", "task", "exchange", "routing_key", "args", "kwargs", "created_at"]


def columns(connection: psycopg.Connection[Any], view: str) -> list[str]:
    """The columns of a view, in order."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " ORDER BY attnum",
        [f"outbox.{view}"],
    )
    return [name for (name,) in rows]


def test_the_views_have_the_columns_of_the_contract(emptied_database: str) -> None:
    """Dashboards and scripts rely on the names."""
    with psycopg.connect(emptied_database) as connection:
        for view in ("pending", "scheduled", "dead"):
            assert columns(connection, view) == [
                *PROMISED,
                "available_at",
                "attempts",
                "last_error",
            ]
        assert columns(connection, "sent") == [*PROMISED, "sent_at"]
        assert columns(connection, "stats") == [
            "pending",
            "scheduled",
            "dead",
            "oldest_pending_age",
            "expired",
        ]


def test_arguments_are_shown_short(emptied_database: str) -> None:
    """As Celery's argsrepr has them, and never a whole payload."""
    commit_rows(emptied_database, headers='{"argsrepr": "(%s)", "kwargsrepr": "{}"}' % ("9" * 900))
    commit_rows(emptied_database, headers="{}")

    with psycopg.connect(emptied_database) as connection:
        shown = connection.execute("SELECT args, kwargs FROM outbox.pending ORDER BY id").fetchall()

    assert shown == [("(" + "9" * 199, "{}"), (None, None)]


@pytest.mark.parametrize("odd", ["\\u0000", "\\ud83d", "\\ude00", "\\uD83Dx", "\\ude00\\ud83d"])
def test_odd_headers_do_not_break_the_views(emptied_database: str, odd: str) -> None:
    """Escapes that no text can hold are legal in json: one such row must not hide all others."""
    commit_rows(emptied_database, headers=f'{{"x": "{odd}", "argsrepr": "(1,)"}}')
    commit_rows(emptied_database, headers=f'{{"argsrepr": "{odd}"}}')
    commit_rows(emptied_database, headers='{"argsrepr": "(2,)"}')

    with psycopg.connect(emptied_database) as connection:
        shown = connection.execute("SELECT args FROM outbox.pending ORDER BY id").fetchall()

    assert shown == [(None,), (None,), ("(2,)",)]


def test_escaped_letters_are_shown_as_letters(emptied_database: str) -> None:
    """Python escapes whatever is not ASCII, and whatever is beyond 16 bits as two halves."""
    commit_rows(emptied_database, headers='{"argsrepr": "\\u00e9 \\ud83d\\ude00\\ud83d\\uDE00"}')

    with psycopg.connect(emptied_database) as connection:
        shown = connection.execute("SELECT args FROM outbox.pending").fetchall()

    assert shown == [("é \U0001f600\U0001f600",)]


def test_lag_is_that_of_the_oldest_due_message(emptied_database: str) -> None:
    """Counted from when it became due, wherever it waits; nothing due, no lag."""
    commit_rows(emptied_database, available_in=3600)
    with psycopg.connect(emptied_database) as connection:
        lag = "SELECT oldest_pending_age FROM outbox.stats"
        assert connection.execute(lag).fetchone() == (timedelta(0),)
        insert_rows(connection, available_in=-7200)
        insert_rows(connection)

        row = connection.execute(lag).fetchone()

        assert row is not None
        assert timedelta(hours=2) <= row[0] < timedelta(hours=3)


HELD = (
    "WITH held AS (DELETE FROM outbox.ready {where} RETURNING id, slot, lane)"
    " INSERT INTO outbox.parked (id, slot, state, available_at, lane, route)"
    " SELECT id, slot, 'retry', now() + interval '1 day', lane, {route} FROM held"
)


@pytest.mark.parametrize(
    ("route", "counts"),
    [
        ("chr(30) || 'queue:mail'", False),
        ("chr(30) || 'rate:queue:mail'", False),
        ("chr(30) || 'depth:mail'", True),
        ("chr(31) || 'mail'", True),
        ("NULL", True),
    ],
)
def test_what_is_paused_or_limited_is_no_lag(
    emptied_database: str, route: str, counts: bool
) -> None:
    """Nor is what is behind it in its lane; what waits for room, or for its route, is."""
    lag = "SELECT oldest_pending_age > interval '1 hour' FROM outbox.stats"
    with psycopg.connect(emptied_database) as connection:
        held, behind = insert_rows(connection, 2, available_in=-7200, ordering_key="k")
        connection.execute(
            "WITH gone AS (DELETE FROM outbox.lane WHERE id ="
            " (SELECT min(id) FROM outbox.lane) RETURNING id, slot, key)"
            " INSERT INTO outbox.ready (id, slot, lane) SELECT id, slot, key FROM gone"
        )
        statement = HELD.format(where=WHERE, route=route)
        connection.execute(statement.encode(), {"message_id": held})
        assert connection.execute(lag).fetchone() == (counts,)
        assert connection.execute("SELECT pending FROM outbox.stats").fetchone() == (2,)

        (another,) = insert_rows(connection, available_in=-7200, ordering_key="another")
        assert connection.execute(lag).fetchone() == (True,)
        assert len({held, behind, another}) == 3


def test_counts_stay_near_the_truth_on_a_large_backlog(emptied_database: str) -> None:
    """Beyond what is counted exactly, a sample of pages is: the same ones each time."""
    rows = 250_000
    with psycopg.connect(emptied_database) as connection:
        connection.execute(
            "INSERT INTO outbox.ready (id, slot) SELECT g, 0 FROM generate_series(1, %s) g", [rows]
        )

        counted = {
            connection.execute("SELECT pending FROM outbox.stats").fetchall()[0] for _ in range(5)
        }

        connection.rollback()
    ((pending,),) = counted  # or an alert would take one look after another for growth
    assert 0.8 * rows < pending < 1.2 * rows


def test_few_are_counted_exactly_whatever_lies_about(connection: psycopg.Connection[Any]) -> None:
    """A drained backlog that vacuum has not seen hides none, and makes up none."""
    connection.execute("ALTER TABLE outbox.ready SET (autovacuum_enabled = off)")
    connection.execute("ALTER TABLE outbox.parked SET (autovacuum_enabled = off)")
    connection.execute(
        "INSERT INTO outbox.ready (id, slot) SELECT n, 0 FROM generate_series(1, 200000) n"
    )
    connection.execute(
        "INSERT INTO outbox.parked (id, slot, state, available_at)"
        " SELECT n, 0, 'scheduled', now() + interval '1 day' FROM generate_series(1, 150000) n"
    )
    connection.execute("DELETE FROM outbox.ready WHERE id % 29000 <> 0")
    connection.execute("UPDATE outbox.parked SET state = 'dead' WHERE id % 50000 = 0")
    connection.execute("UPDATE outbox.parked SET state = 'retry' WHERE id % 70000 = 0")
    connection.commit()
    large = (
        "SELECT least(pg_relation_size('outbox.ready'), pg_relation_size('outbox.parked'))"
        " > 1000 * 8192"
    )
    assert connection.execute(large).fetchone() == (True,)

    row = connection.execute("SELECT pending, scheduled, dead FROM outbox.stats").fetchone()

    assert row is not None
    pending, scheduled, dead = row
    assert (pending, dead) == (6 + 2, 3)
    assert 100_000 < scheduled < 200_000
