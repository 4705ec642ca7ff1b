"""The demo's last act waits for as long as something moves: a slow machine proves nothing wrong."""

from demo.progress import Numbers
from demo.stage import Patience
from tests.fixtures.clock import Clock


def numbers(executed: int) -> Numbers:
    """So many tasks executed."""
    return Numbers(pending=0, scheduled=0, dead=0, sent=9, executed=executed, duplicates=0)


def test_movement_puts_the_deadline_off() -> None:
    """Numbers that move every 50 seconds are waited for; 60 without a change are too long."""
    clock = Clock()
    patience = Patience(60, at_most=900, clock=clock)

    for executed in range(10):
        assert not patience.is_over(numbers(executed))
        clock.now += 50
    assert not patience.is_over(numbers(9))
    clock.now += 11
    assert patience.is_over(numbers(9))


def test_there_is_a_last_moment() -> None:
    """Also where the numbers never stop to move."""
    clock = Clock()
    patience = Patience(60, at_most=60, clock=clock)

    assert not patience.is_over(numbers(1))
    clock.now += 61
    assert patience.is_over(numbers(2))
