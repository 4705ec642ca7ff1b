"""What is opened on another thread is told of, whatever came of it, and never waited for."""

from threading import Event

import pytest

from outbox_relay.broker.opening import Background
from tests.fixtures.waiting import wait_until

DEADLINE = 30.0


def test_it_is_there_once_it_is_open() -> None:
    """Until then there is none."""
    let = Event()
    opening = Background(lambda: let.wait(DEADLINE), lambda _: None)
    assert opening.result() is None
    let.set()
    wait_until(opening.result, DEADLINE, "the connection")


def test_whatever_keeps_it_from_opening_is_told() -> None:
    """Nobody waits for ever because a thread has died."""

    def fail() -> int:
        raise UnicodeError("not of the kinds that a broker makes")

    def told() -> bool:
        try:
            return opening.result() is not None
        except UnicodeError:
            return True

    opening = Background(fail, lambda _: None)
    wait_until(told, DEADLINE, "the failure")
    with pytest.raises(UnicodeError):
        opening.result()


def test_what_nobody_needs_is_closed() -> None:
    """Whether it is open already or not yet."""
    for late in (False, True):
        let, closed = Event(), Event()
        opening = Background(lambda let=let: let.wait(DEADLINE), lambda _, e=closed: e.set())  # type: ignore[misc]  # defaults bind the loop's values
        if not late:
            let.set()
            wait_until(opening.result, DEADLINE, "the connection")
        opening.abandon()
        let.set()
        assert closed.wait(DEADLINE)
