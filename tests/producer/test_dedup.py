"""Which messages are dropped is decided on values alone; who sent one learns it from an outcome."""

import dataclasses
import pickle
from datetime import datetime
from typing import Any, get_args

import pytest

from celery_outbox import Message
from celery_outbox.statements.commands import Entry, Outcome, commands, execute_all
from celery_outbox.statements.dedup import claims, dropped
from tests.producer.messages import message

PLAIN: Any = {str, bytes, bool, datetime, type(None)}


def test_a_message_holds_plain_values_alone() -> None:
    """Nothing in it points back to who sent it: it is equal to its copy, key and all."""
    for field in dataclasses.fields(Message):
        assert {*get_args(field.type), field.type} & PLAIN, field.name
        assert set(get_args(field.type)) <= PLAIN
    sent = message("a", "k")
    assert pickle.loads(pickle.dumps(sent)) == sent


def test_each_key_is_claimed_once_in_order() -> None:
    """Sorted, for the first message that has it; messages without a key claim nothing."""
    messages = [message("1", "b"), message("2"), message("3", "a"), message("4", "b")]

    assert claims(messages) == (["a", "b"], ["3", "1"])


@pytest.mark.parametrize(
    ("pending", "expected"),
    [
        ([None, None], {3: "1"}),
        (["0", None], {2: "0", 3: "1"}),
        ([None, "0"], {0: "0", 3: "0"}),
    ],
)
def test_who_is_dropped(pending: list[str | None], expected: dict[int, str]) -> None:
    """Whose key is pending, in the database or earlier in the same statement."""
    messages = [message("1", "b"), message("2"), message("3", "a"), message("4", "b")]

    assert dropped(messages, ["a", "b"], pending) == expected


def test_two_with_one_id_and_one_key() -> None:
    """The second is dropped although its id is the first one's."""
    twice = [message("1", "a"), message("1", "a")]

    assert dropped(twice, ["a"], [None]) == {1: "1"}


class Result:
    """What Celery returns."""

    def __init__(self, id: str) -> None:
        self.id = id


@pytest.mark.parametrize("early", [True, False], ids=["followed before", "followed after"])
def test_a_result_follows_the_outcome(early: bool) -> None:
    """Whether the database has answered by then, or answers later."""
    entry = Entry.of("outbox", message("1", "a"))
    result = Result("1")
    executed = []

    def execute(text: str, parameters: tuple[Any, ...]) -> list[tuple[str]]:
        executed.append(parameters)
        return [("0",)]

    if early:
        entry.outcome.share_id_with(result)
    execute_all(commands("outbox", [entry]), execute)
    if not early:
        entry.outcome.share_id_with(result)

    assert executed == [(["a"], ["1"])]  # and no INSERT
    assert entry.outcome.pending_id == result.id == "0"


def test_an_outcome_of_what_is_stored() -> None:
    """It is pending itself, and its result keeps its id."""
    outcome, result = Outcome(message("1")), Result("1")
    outcome.share_id_with(result)

    assert outcome.pending_id == result.id == "1"
