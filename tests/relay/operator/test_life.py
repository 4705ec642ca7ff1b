"""The life of a message is told in the order of time, by one clock."""

from datetime import UTC, datetime, timedelta

import pytest

from outbox_relay.configuration import from_environment
from outbox_relay.core.claim import Claim, Turn
from outbox_relay.operator.life import (
    Action,
    Confirm,
    Receipt,
    Step,
    Told,
    at_worker,
    in_order,
    in_outbox,
)
from outbox_relay.operator.session import Session
from outbox_relay.operator.show import find, life_of
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows


def at(second: float) -> datetime:
    """So many seconds into an evening."""
    return datetime(2030, 1, 31, 20, tzinfo=UTC) + timedelta(seconds=second)


def test_a_message_that_was_replayed() -> None:
    """From its creation to the second confirm, with who did it and why."""
    confirms = [Confirm(at(2), at(1)), Confirm(at(22), at(21))]
    actions = [Action(at(20), "ada", "replay", "the broker lost its disk")]
    receipt = Receipt("failed", "KeyError", 0, "w@host", at(23), at(24), at(25))

    steps = in_outbox(at(0), None, confirms, actions) + at_worker(Told(receipt), 0)

    assert [step.what for step in in_order(steps)] == [
        "created",
        "claimed",
        "confirmed",
        "replayed by ada: the broker lost its disk",
        "claimed again",
        "confirmed again",
        "received by w@host",
        "finished: failed (KeyError)",
    ]


def test_the_clock_of_the_inbox_is_set_back() -> None:
    """Else a message would be received before it was confirmed, or an hour after it."""
    receipt = Receipt("held", None, 0, "w@host", at(3603), None, at(3604))
    told = Told(receipt, at(3602), timedelta(hours=1))

    assert at_worker(told, 0) == [
        Step(at(2), "its effects began, and are committed"),
        Step(at(3), "received by w@host"),
        Step(at(4), "held by w@host"),
    ]


def test_a_receipt_of_another_run_is_not_told() -> None:
    """A retry has the id of its task, and a row of its own."""
    receipt = Receipt("succeeded", None, 1, "w@host", at(1), at(2), at(3))

    assert at_worker(Told(receipt), 0) == []
    assert len(at_worker(Told(receipt), 1)) == 2


def test_times_that_python_has_not() -> None:
    """They are before or after all others."""
    steps = [Step("infinity", "c"), Step(at(0), "b"), Step("-infinity", "a")]

    assert [step.what for step in in_order(steps)] == ["a", "b", "c"]


@pytest.mark.parametrize("released", [False, True], ids=["in time", "given back meanwhile"])
def test_when_it_was_claimed_is_kept(database: str, released: bool) -> None:
    """With the receipt of its batch; of a claim that was given back it is not known any more."""
    [id] = commit_rows(database)
    store = Store.connect(database, "outbox", statement_timeout=5)
    try:
        rows = store.round_trip(None, Turn([], 0, 1, 7, 10.0)).rows
        fetched = store.round_trip(Claim(rows, 7, 0.0), None).fetched
        assert fetched is not None
        if released:
            store.release([message.held for message in fetched.messages])
        assert store.round_trip(None, Turn(fetched.messages, 0, 0, 8, 10.0)).unsettled == []
    finally:
        store.close()

    settings = from_environment({"OUTBOX_DATABASE_URL": database}, need_broker=False)
    with Session.open(settings) as session:
        [whole] = find(session, id, body=False)
        steps = [step.what for step in life_of(session, whole, Told())]
    assert steps == ["created", *([] if released else ["claimed"]), "confirmed"]
