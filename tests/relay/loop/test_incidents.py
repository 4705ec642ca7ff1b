"""An outage of hours and a backlog of refusals are a few lines of log, the first at once."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from outbox_relay.core.message import Parking, Reason, Refusal
from outbox_relay.loop.incidents import CALM, REMIND_EVERY, SUM_EVERY, Outage, Refusals
from tests.fixtures.clock import Clock
from tests.relay.messages import a_message


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    """What was logged."""
    with capture_logs() as events:
        yield events


def refusals(count: int, reason: Reason = Reason.UNROUTABLE) -> list[Refusal]:
    """That many messages nobody wants."""
    return [Refusal(a_message(message_id=f"m{n}"), reason, "no queue") for n in range(count)]


def test_an_outage_is_two_lines(clock: Clock, logged: list[EventDict]) -> None:
    """One when it begins, however often it is tried, and one when it is over."""
    broker = Outage("broker", clock)
    broker.works()
    for _ in range(20):
        broker.lost("refused")
    clock.now += CALM
    broker.works()
    broker.works()

    assert [e["event"] for e in logged] == ["broker_up", "broker_lost", "broker_up"]


def test_a_long_outage_is_mentioned_again(clock: Clock, logged: list[EventDict]) -> None:
    """Every minute, with the newest reason: it may have become another one."""
    database = Outage("database", clock)
    database.lost("connection refused")
    for _ in range(int(REMIND_EVERY)):
        clock.now += 1
        database.lost("wrong password")

    assert [(e["event"], e["reason"]) for e in logged] == [
        ("database_lost", "connection refused"),
        ("database_lost", "wrong password"),
    ]


def test_a_server_that_comes_and_goes_has_not_come_back(
    clock: Clock, logged: list[EventDict]
) -> None:
    """One that takes connections and drops them is one outage."""
    broker = Outage("broker", clock)
    for _ in range(50):
        broker.lost("reset by peer")
        clock.now += CALM / 2
        broker.works()

    assert [e["event"] for e in logged] == ["broker_lost"]


def test_the_first_refusal_is_said_at_once(clock: Clock, logged: list[EventDict]) -> None:
    """With its reason and the id to look for."""
    Refusals(clock).add(refusals(3), [])

    (event,) = logged
    assert event == {
        "event": "messages_refused",
        "log_level": "warning",
        "reason": "unroutable",
        "messages": 3,
        "first": "m0",
        "detail": "no queue",
    }


def test_a_million_refusals_are_a_few_lines(clock: Clock, logged: list[EventDict]) -> None:
    """Summed up by reason, and none is forgotten."""
    told = Refusals(clock)
    for _ in range(100):
        told.add(refusals(10), [])
        told.add(refusals(1, Reason.NACKED), [])
        clock.now += SUM_EVERY / 50
    told.log(all_of_them=True)

    by_reason = {
        reason: [e["messages"] for e in logged if e["reason"] == reason]
        for reason in ("unroutable", "nacked")
    }
    assert sum(by_reason["unroutable"]) == 1000
    assert sum(by_reason["nacked"]) == 100
    assert len(logged) <= 8


def test_a_sum_does_not_wait_for_the_next_refusal(clock: Clock, logged: list[EventDict]) -> None:
    """What was held back is said when its time has come."""
    told = Refusals(clock)
    told.add(refusals(1), [])
    told.add(refusals(5), [])
    clock.now += SUM_EVERY
    told.log()
    told.log()

    assert [e["messages"] for e in logged] == [1, 5]


def test_the_dead_are_an_error_of_their_own(clock: Clock, logged: list[EventDict]) -> None:
    """Nobody but a person will do anything about them."""
    message = a_message(message_id="m7")
    parkings = [
        Parking(message, "dead", 1, 0, 0.0, "invalid: too long"),
        Parking(message, "retry", 1, 0, 0.0, "unroutable: no queue"),
    ]
    Refusals(clock).add([], parkings)

    (event,) = logged
    assert (event["event"], event["log_level"]) == ("messages_dead", "error")
    assert (event["messages"], event["first"]) == (1, "m7")
    assert event["detail"] == "invalid: too long"
