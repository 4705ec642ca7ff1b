"""`outbox.act` does what people choose, to rows, and leaves a record that nobody can change."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from outbox_migrations import grant
from tests.fixtures.rows import commit_rows, states

_BURY = """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.parked (id, slot, state, available_at) SELECT id, slot, 'dead', now() FROM gone
"""


def act(url: str, action: str, rows: list[int], **more: Any) -> int:
    """How many messages an action changed."""
    with psycopg.connect(url) as connection:
        values = {"action": action, "rows": rows, "at": None, **more}
        row = connection.execute(
            "SELECT outbox.act(%(action)s, %(rows)s, 'ada', 'because', %(at)s::timestamptz)", values
        ).fetchone()
    assert row is not None
    return int(row[0])


def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Run a statement, and return its rows if it has any."""
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def ids(url: str, view: str) -> list[int]:
    """The ids that a view shows."""
    return [row[0] for row in run(url, f"SELECT id FROM outbox.{view} ORDER BY id")]


def test_each_action_changes_what_is_in_its_state(emptied_database: str) -> None:
    """And leaves everything else alone, and out of the record."""
    url = emptied_database
    commit_rows(url, 2)
    run(url, _BURY)
    commit_rows(url, 2)
    commit_rows(url, 2, available_in=3600)
    dead, pending, scheduled = ids(url, "dead"), ids(url, "pending"), ids(url, "scheduled")
    everything = [*dead, *pending, *scheduled]

    assert act(url, "replay", everything) == 0
    assert act(url, "retry", dead[:1]) == 1
    assert act(url, "discard", everything) == 1
    assert act(url, "reschedule", [*pending[:1], scheduled[0]], at="2199-01-01") == 2
    assert act(url, "cancel", everything) == 5
    record = run(url, "SELECT who, action, why, ids FROM outbox.action ORDER BY id DESC LIMIT 4")
    assert record[::-1] == [
        ("ada", "retry", "because", dead[:1]),
        ("ada", "discard", "because", dead[1:]),
        ("ada", "reschedule", "because", [scheduled[0], pending[0]]),
        ("ada", "cancel", "because", record[0][3]),
    ]
    assert set(record[0][3]) == {dead[0], *pending, *scheduled}
    assert states(url) == {"pending": 0, "scheduled": 0, "sent": 0, "dead": 0}


def test_what_a_relay_holds_is_left_alone(emptied_database: str) -> None:
    """It may be on the wire already."""
    commit_rows(emptied_database, 1)
    run(emptied_database, "UPDATE outbox.ready SET lease_until = now() + interval '1 minute'")
    rows = ids(emptied_database, "pending")

    assert act(emptied_database, "cancel", rows) == 0
    assert act(emptied_database, "reschedule", rows, at="2199-01-01") == 0


def test_what_is_in_a_lane_keeps_its_place(emptied_database: str) -> None:
    """Retried it goes to its lane; rescheduled it would overtake, so it is left alone."""
    commit_rows(emptied_database, 2, ordering_key="k")
    rows = ids(emptied_database, "pending")

    assert act(emptied_database, "reschedule", rows, at="2199-01-01") == 0
    assert act(emptied_database, "cancel", rows[:1]) == 1
    assert run(emptied_database, "SELECT id, key FROM outbox.lane") == [(rows[1], "k")]


def test_what_was_sent_is_sent_again_once(emptied_database: str) -> None:
    """With the id it had; while it is on its way, it is not sent a second time."""
    commit_rows(emptied_database, 1)
    (row,) = ids(emptied_database, "pending")
    run(emptied_database, "DELETE FROM outbox.ready")
    run(
        emptied_database,
        f"INSERT INTO outbox.receipt (slot, span, ids)"
        f" SELECT slot, '[{row},{row}]', '{{{row}}}' FROM outbox.message",
    )

    assert [act(emptied_database, "replay", [row]) for _ in range(2)] == [1, 0]
    assert ids(emptied_database, "pending") == [row]


def test_of_two_messages_with_one_id_the_one_that_was_sent_is_sent_again(
    emptied_database: str,
) -> None:
    """The sequence was restarted: a row id alone does not tell, and one receipt is of one."""
    url = emptied_database
    run(
        url,
        """INSERT INTO outbox.message (id, slot, message_id, task, body, content_type,
                                       content_encoding, created_at)
        OVERRIDING SYSTEM VALUE
        VALUES (1, 1, 'old', 't', '', 'c', 'e', now() - interval '2 h')""",
    )
    run(url, "DELETE FROM outbox.ready")
    run(
        url,
        """INSERT INTO outbox.receipt (slot, span, ids, sent_at)
        VALUES (1, '[1,1]', '{1}', now() - interval '1 h')""",
    )
    run(
        url,
        """INSERT INTO outbox.message (id, slot, message_id, task, body, content_type,
                                       content_encoding)
        OVERRIDING SYSTEM VALUE VALUES (1, 2, 'new', 't', '', 'c', 'e')""",
    )

    assert act(url, "replay", [1]) == 1

    waiting = run(url, "SELECT message_id FROM outbox.pending ORDER BY 1")
    assert waiting == [("new",), ("old",)]


def test_a_slot_tells_two_messages_with_one_id_apart(emptied_database: str) -> None:
    """Whoever names it changes no other message, in whatever state that is."""
    url = emptied_database
    commit_rows(url, 1)
    ((row, slot),) = run(url, "SELECT id, slot FROM outbox.ready")
    other = (slot + 1) % 16

    def changed(action: str, of: int) -> Any:
        call = f"outbox.acted('{action}', '{{{row}}}', '{{{of}}}', 'ada', '', '2199-01-01')"
        return [each for (each,) in run(url, f"SELECT id FROM {call}")]

    assert [changed(each, other) for each in ("cancel", "reschedule")] == [[], []]
    assert changed("reschedule", slot) == [row]
    assert changed("cancel", slot) == [row]


def test_a_message_is_rescheduled_by_its_id(emptied_database: str) -> None:
    """Pending, scheduled or between two attempts: held until then; at once with now()."""
    url = emptied_database
    commit_rows(url, message_ids=["due"])
    commit_rows(url, message_ids=["later"], available_in=3600)
    commit_rows(url, message_ids=["again"])
    run(
        url,
        """WITH gone AS (DELETE FROM outbox.ready r USING outbox.message m
                         WHERE m.id = r.id AND m.message_id = 'again' RETURNING r.id, r.slot)
        INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
        SELECT id, slot, 'retry', now() + interval '1 h', 3, 'refused' FROM gone""",
    )
    names = ("due", "later", "again", "nobody")

    moved = [
        run(url, f"SELECT outbox.reschedule('{name}', '2199-01-01 00:00+00')")[0][0]
        for name in names
    ]

    assert moved == [1, 1, 1, 0]
    found = run(url, "SELECT message_id, attempts, last_error FROM outbox.scheduled ORDER BY 1")
    assert found == [("again", 3, "refused"), ("due", 0, None), ("later", 0, None)]
    run(url, "SELECT outbox.reschedule('due', now())")
    assert run(url, "SELECT message_id FROM outbox.pending") == [("due",)]


@pytest.mark.parametrize("at", ["NULL", "'infinity'", "'-infinity'"])
def test_no_time_is_no_time_to_hold_a_message_until(emptied_database: str, at: str) -> None:
    """Refused, whether or not there is such a message."""
    with pytest.raises(errors.InvalidParameterValue, match="reschedule needs a time"):
        run(emptied_database, f"SELECT outbox.reschedule('m', {at})")


@pytest.mark.parametrize(
    ("action", "at", "count"),
    [
        ("drop", None, 1),
        ("reschedule", None, 1),
        ("reschedule", "infinity", 1),
        ("retry", None, 10001),
    ],
)
def test_nonsense_is_refused(
    emptied_database: str, action: str, at: str | None, count: int
) -> None:
    """An unknown action, no time, no real time, too many: an error, and no record."""
    before = run(emptied_database, "SELECT count(*) FROM outbox.action")
    with pytest.raises(errors.InvalidParameterValue):
        act(emptied_database, action, [1] * count, at=at)

    assert run(emptied_database, "SELECT count(*) FROM outbox.action") == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE outbox.action SET who = 'bob'",
        "DELETE FROM outbox.action",
        "TRUNCATE outbox.action",
    ],
)
def test_the_record_is_append_only(emptied_database: str, statement: str) -> None:
    """Even for the owner of the table, who would have to take the trigger away first."""
    with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
        run(emptied_database, statement)


_ALLOWED = {
    "SELECT id, message_id, task, last_error FROM outbox.dead": "viewer reader",
    "SELECT id FROM outbox.message": "viewer reader",
    "SELECT who FROM outbox.action": "viewer reader",
    "SELECT pending FROM outbox.stats": "viewer reader",
    "SELECT args FROM outbox.dead": "reader",
    "SELECT kwargs FROM outbox.sent": "reader",
    "SELECT body FROM outbox.message": "reader",
    "SELECT headers FROM outbox.message": "reader",
    "SELECT properties FROM outbox.message": "reader",
    "SELECT declare FROM outbox.message_0": "",
    "SELECT outbox.act('retry', '{1}', 'ada')": "operator",
    "SELECT outbox.retry_rows('{1}')": "",
    "SELECT outbox.remove_rows('{1}', NULL, true)": "",
    "SELECT outbox.replay_rows('{1}')": "",
    "SELECT outbox.acted('retry', '{1}', NULL, 'ada', '', NULL)": "",
    "SELECT outbox.retry('m')": "",
    "SELECT outbox.reschedule('m', now())": "",
    "SELECT outbox.purge('1 day')": "",
    "INSERT INTO outbox.action (who, action, why, ids) VALUES ('x', 'retry', '', '{}')": "",
    "SELECT outbox.pause(queue => 'mail')": "operator",
    "SELECT outbox.set_rate(1, queue => 'mail')": "operator",
    "SELECT outbox.take_tokens('{all}', '{1}')": "",
    "SELECT who FROM outbox.rate": "viewer reader",
    "SELECT outbox.resume(queue => 'mail')": "operator",
    "SELECT who FROM outbox.paused": "viewer reader",
    "SELECT waiting FROM outbox.route": "viewer reader",
    "DELETE FROM outbox.hold": "",
    "DELETE FROM outbox.ready": "",
    "DELETE FROM outbox.action": "",
    "UPDATE outbox.parked SET attempts = 0": "",
}


def test_people_may_do_what_their_role_says(database: str) -> None:
    """A viewer sees no payload, a reader does, an operator acts through one function alone."""
    grant(database)
    allowed = {
        statement: " ".join(
            role for role in ("viewer", "reader", "operator") if _may(database, role, statement)
        )
        for statement in _ALLOWED
    }

    assert allowed == _ALLOWED


def _may(url: str, role: str, statement: str) -> bool:
    with psycopg.connect(url) as connection:
        connection.execute(f"SET LOCAL ROLE outbox_{role}".encode())
        try:
            connection.execute(statement.encode())
        except errors.InsufficientPrivilege:
            return False
        finally:
            connection.rollback()
    return True
