"""Chores wait for what was committed when the doorbell rings, and grow rare with less to do."""

from outbox_relay.loop.pace import CHORES_AFTER_CALL, Pace
from outbox_relay.loop.sleep import Sleep


def times(
    pace: Pace, sleep: Sleep, seconds: float, *, quiet: bool = False, holding: bool = False
) -> int:
    """How often chores are due within so many seconds, asked a hundred times each."""
    moments = (number / 100 for number in range(int(seconds * 100)))
    return sum(pace.are_due(moment, sleep, quiet=quiet, holding=holding) for moment in moments)


def test_the_less_there_is_to_do() -> None:
    """Ten times a second at work; six times a minute asleep; twice when nothing has moved."""
    sleep = Sleep()
    assert 55 <= times(Pace(), sleep, 6) <= 60
    sleep.asleep = True
    assert times(Pace(), sleep, 60) == 6
    assert times(Pace(), sleep, 60, quiet=True) == 2


def test_who_holds_something_keeps_it() -> None:
    """Asleep beside a queue that hangs, claims are renewed as often as at work."""
    sleep = Sleep()
    sleep.asleep = True
    assert 55 <= times(Pace(), sleep, 6, quiet=True, holding=True) <= 60


def test_the_bell() -> None:
    """What was committed goes first; chores follow in a moment."""
    pace, sleep = Pace(), Sleep()
    sleep.asleep = True
    assert pace.are_due(0, sleep, quiet=False)
    sleep.asleep, sleep.rung = False, True

    assert not pace.are_due(5, sleep, quiet=False)
    assert pace.are_due(5 + 2 * CHORES_AFTER_CALL, sleep, quiet=False)


def test_the_alarm() -> None:
    """What is due is for the chores to bring out: they come first."""
    pace, sleep = Pace(), Sleep()
    sleep.asleep = True
    assert pace.are_due(0, sleep, quiet=False)
    sleep.asleep = False

    assert pace.are_due(0.01, sleep, quiet=False, holding=True)
    assert pace.alarm
    assert pace.are_due(1, sleep, quiet=False)
    assert not pace.alarm


def test_a_beginning() -> None:
    """What is there is published first, unless chores cannot wait."""
    pace, sleep = Pace(), Sleep()
    pace.begins(0)
    assert not pace.are_due(0, sleep, quiet=False)
    assert not pace.are_due(2 * CHORES_AFTER_CALL, sleep, quiet=False, holding=True)
    sleep.asleep = True
    assert pace.are_due(3 * CHORES_AFTER_CALL, sleep, quiet=False)

    pace.begins(1, chores_first=True)
    assert pace.are_due(1, sleep, quiet=False, holding=True)
