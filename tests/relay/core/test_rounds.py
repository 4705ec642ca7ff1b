"""What looks every so often looks seldom while nothing moves, and as before once it does."""

from outbox_relay.core.rounds import Rounds


def test_while_something_moves() -> None:
    """Every time it is asked."""
    rounds = Rounds(60)
    assert [rounds.are_due(now) for now in (5.0, 15.0, 25.0)] == [True, True, True]


def test_while_nothing_moves() -> None:
    """Only when the longer time is over, counted from the last round."""
    rounds = Rounds(60, lambda: True)
    due = [now for now in range(0, 200, 10) if rounds.are_due(now)]
    assert due == [0, 60, 120, 180]


def test_something_moves_again() -> None:
    """The next time it is asked is a round."""
    quiet = True
    rounds = Rounds(60, lambda: quiet)
    assert [rounds.are_due(0), rounds.are_due(10)] == [True, False]
    quiet = False
    assert rounds.are_due(20)
