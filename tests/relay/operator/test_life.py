"""The life of a message is told in the order of time, by one clock."""

from datetime import UTC, datetime, timedelta

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
