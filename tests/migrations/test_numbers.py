"""Two messages with one id, as after a sequence was restarted: each is dealt with by itself."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from tests.fixtures.rows import commit_rows, commit_twin, ids_in, states

PARK = """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.parked (id, slot, state, available_at)
SELECT id, slot, %s, now() + interval '1 hour' FROM gone
"""
SETTLE = """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.receipt (slot, span, ids)
SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM gone
"""


def run(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement, and return its rows if it has any."""
    with psycopg.connect(url) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def becomes(url: str, state: str) -> None:
    """What is ready gets into another state."""
    if state == "sent":
        run(url, SETTLE)
    elif state != "pending":
        run(url, PARK, state)


def twins(url: str, first: str, second: str, **columns: Any) -> tuple[int, int, int]:
    """`old` and `new`, each in its state, with one id; that, and their slots."""
    commit_rows(url, message_ids=["old"], **columns)
    becomes(url, first)
    commit_twin(url, "old", message_ids=["new"])
    becomes(url, second)
    ((row, slot), (same, other)) = run(
        url, "SELECT id, slot FROM outbox.message ORDER BY created_at"
    )
    assert row == same
    return row, slot, other


@pytest.mark.parametrize("second", ["pending", "scheduled", "dead", "sent"])
def test_a_dead_letter_comes_home_beside_one_with_its_id(
    emptied_database: str, second: str
) -> None:
    """Whatever the other does: it stays as it is, and neither is lost or waited for."""
    url = emptied_database
    twins(url, "sent", second)

    home = "SELECT * FROM outbox.bring_home(ARRAY['old'], ARRAY['dead'], ARRAY['x'])"
    assert run(url, home) == [("old", "home")]
    assert run(url, home) == [("old", "known")]

    assert ids_in(url, "dead") == {"old"} | ({"new"} if second == "dead" else set())
    assert ids_in(url, second) >= {"new"}
    assert run(url, "SELECT outbox.retry('old')") == [(1,)]
    assert "old" in ids_in(url, "pending")


def test_both_come_home(emptied_database: str) -> None:
    """In one look at the queue."""
    twins(emptied_database, "sent", "sent")

    home = "SELECT * FROM outbox.bring_home(%s, ARRAY['dead', 'dead'], ARRAY['x', 'y'])"
    assert run(emptied_database, home, ["old", "new"]) == [("old", "home"), ("new", "home")]

    assert run(emptied_database, "SELECT message_id, last_error FROM outbox.dead ORDER BY 1") == [
        ("new", "y"),
        ("old", "x"),
    ]


@pytest.mark.parametrize(
    "call", ["outbox.retry('old')", "outbox.act('retry', ARRAY[{row}], 'ada')"]
)
@pytest.mark.parametrize("key", [None, "k"], ids=["alone", "in a lane"])
def test_the_dead_one_is_retried_beside_the_pending_one(
    emptied_database: str, call: str, key: str | None
) -> None:
    """It gets a new id; what it was waits under its own."""
    url = emptied_database
    row, _, other = twins(url, "dead", "pending")
    if key:
        run(url, "UPDATE outbox.parked SET lane = 'k'")
        run(
            url,
            "WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.lane (id, slot, key) SELECT id, slot, 'k' FROM gone",
        )

    assert run(url, f"SELECT {call.format(row=row)}") == [(1,)]

    assert states(url) == {"pending": 2, "scheduled": 0, "sent": 0, "dead": 0}
    waits = "SELECT id, slot FROM outbox.ready UNION SELECT id, slot FROM outbox.lane"
    assert (row, other) in run(url, waits)
    assert len({id_ for id_, _ in run(url, waits)}) == 2


@pytest.mark.parametrize(
    "call",
    ["outbox.reschedule('new', '2199-01-01')", "outbox.act('reschedule', %s, 'a', '', '2199-1-1')"],
)
def test_the_pending_one_is_rescheduled_beside_the_dead_one(
    emptied_database: str, call: str
) -> None:
    """Which stays dead."""
    row, _, _ = twins(emptied_database, "dead", "pending")

    assert run(emptied_database, f"SELECT {call}".replace("%s", f"ARRAY[{row}]")) == [(1,)]

    assert ids_in(emptied_database, "dead") == {"old"}
    assert ids_in(emptied_database, "scheduled") == {"new"}


@pytest.mark.parametrize(
    ("action", "first", "second"),
    [
        ("replay", "sent", "sent"),
        ("cancel", "scheduled", "pending"),
        ("reschedule", "scheduled", "pending"),
    ],
)
def test_an_id_that_two_have_in_that_state_names_none(
    emptied_database: str, action: str, first: str, second: str
) -> None:
    """Refused, with the way out: the slot tells which is meant."""
    url = emptied_database
    row, slot, _ = twins(url, first, second)
    recorded = "SELECT count(*) FROM outbox.action"
    before = states(url), run(url, recorded)

    with pytest.raises(errors.InvalidParameterValue, match=f"two messages have the id {row}"):
        run(url, f"SELECT outbox.act('{action}', ARRAY[{row}], 'ada', '', '2199-01-01')")
    assert (states(url), run(url, recorded)) == before

    named = f"SELECT outbox.act('{action}', %s, 'ada', '', '2199-01-01', %s)"
    assert run(url, named, [row], [slot]) == [(1,)]
    assert ids_in(url, second) == {"new"}
    assert "old" not in ids_in(url, first) or action == "reschedule"


def test_as_many_slots_as_ids(emptied_database: str) -> None:
    """Anything else is a mistake."""
    with pytest.raises(errors.InvalidParameterValue, match="as many slots as ids"):
        run(emptied_database, "SELECT outbox.act('retry', '{1,2}', 'ada', slots => '{1}')")


def test_one_is_replayed_by_its_message_id(emptied_database: str) -> None:
    """The other stays sent; settled again, each has a receipt of its own."""
    url = emptied_database
    twins(url, "sent", "sent")

    assert run(url, "SELECT outbox.replay_message('old')") == [(1,)]
    assert (ids_in(url, "pending"), ids_in(url, "sent")) == ({"old"}, {"new"})
    becomes(url, "sent")
    assert ids_in(url, "sent") == {"old", "new"}


def test_a_new_id_is_also_the_one_that_deduplication_knows(emptied_database: str) -> None:
    """Retried, it is pending again: a second one with its key is not stored."""
    url = emptied_database
    run(url, "SELECT outbox.enqueue('shop.bill', task_id => 'old', dedup_key => 'k')")
    becomes(url, "dead")
    commit_twin(url, "old", message_ids=["new"])

    run(url, "SELECT outbox.retry('old')")

    assert run(url, "SELECT outbox.claim_dedup('k', 'other')") == [("old",)]


@pytest.mark.parametrize("state", ["pending", "scheduled", "in a lane"])
def test_a_key_is_free_though_another_has_the_id_of_its_last(
    emptied_database: str, state: str
) -> None:
    """What was sent with it is pending no more: the next one is stored."""
    url = emptied_database
    run(url, "SELECT outbox.enqueue('shop.bill', task_id => 'old', dedup_key => 'k')")
    becomes(url, "sent")
    columns = {"ordering_key": "k"} if state == "in a lane" else {}
    commit_twin(url, "old", message_ids=["new"], **columns)
    if state == "scheduled":
        becomes(url, state)

    assert run(url, "SELECT outbox.claim_dedup('k', 'next')") == [(None,)]


def beside(url: str, slot: int) -> None:
    """`other`, pending, in that slot."""
    commit_rows(url, message_ids=["other"])
    for table in ("message", "ready"):
        newest = "SELECT max(id) FROM outbox.message"
        run(url, f"UPDATE outbox.{table} SET slot = {slot} WHERE id = ({newest})")


def test_a_message_that_cannot_be_moved_yet_holds_up_no_retention(emptied_database: str) -> None:
    """Another has its id in the current slot: it waits for the next half-day, and others do not."""
    url = emptied_database
    _, slot, _ = twins(url, "dead", "sent")
    beside(url, slot)

    assert run(url, f"SELECT outbox.move_unsent({slot}::smallint)") == [(1,)]

    assert run(url, "SELECT slot FROM outbox.message WHERE message_id = 'old'") == [(slot,)]
    assert ids_in(url, "dead") == {"old"}
    assert ids_in(url, "pending") == {"other"}


def test_retention_deletes_the_sent_one_beside_the_other(emptied_database: str) -> None:
    """Whose work is no reason to keep it."""
    url = emptied_database
    _, slot, _ = twins(url, "sent", "dead")
    beside(url, slot)

    assert run(url, "SELECT outbox.purge('30 minutes', exact => true)") == [(1,)]

    kept = run(url, "SELECT message_id FROM outbox.message ORDER BY 1")
    assert kept == [("new",), ("other",)]


@pytest.mark.parametrize(("second", "confirmed"), [("pending", ["old"]), ("sent", ["new", "old"])])
def test_an_audit_looks_at_what_was_confirmed_in_each_slot(
    emptied_database: str, second: str, confirmed: list[str]
) -> None:
    """And at nothing that only has the id of it."""
    twins(emptied_database, "sent", second)

    portion = "SELECT message_ids FROM outbox.confirmed_portion('-infinity', now())"
    ((found,),) = run(emptied_database, portion)

    assert sorted(found) == confirmed


def test_the_record_names_each_by_its_slot(emptied_database: str) -> None:
    """And what came by a new id, by that."""
    url = emptied_database
    row, slot, _ = twins(url, "dead", "pending")

    run(url, "SELECT outbox.act('retry', %s, 'ada')", [row])

    ((ids, slots),) = run(url, "SELECT ids, slots FROM outbox.action ORDER BY id DESC LIMIT 1")
    assert (ids, slots) == (
        [run(url, "SELECT id FROM outbox.pending WHERE message_id = 'old'")[0][0]],
        [slot],
    )
    assert ids != [row]
