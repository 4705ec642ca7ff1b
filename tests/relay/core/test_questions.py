"""Every queue is asked about in its turn; one that costs the broker more, less often."""

from itertools import pairwise

from outbox_relay.core.questions import FIRST_PAUSE, MAX_ASKED, MAX_PAUSE, Questions


def test_each_is_asked_about_in_its_turn() -> None:
    """However many there are."""
    questions, queues = Questions(), [f"q{n:04}" for n in range(2 * MAX_ASKED + 1)]
    asked: list[str] = []
    for now in range(4):
        these = questions.next(queues, now)
        assert len(these) <= MAX_ASKED
        questions.answered(these, now)
        asked += these

    assert sorted(set(asked)) == queues


def test_the_first_are_asked_about_each_time() -> None:
    """They come first because messages wait for them; the others still have their turn."""
    questions, queues = Questions(), [f"q{n:04}" for n in range(2 * MAX_ASKED)]
    asked: set[str] = set()
    for now in range(4):
        these = questions.next(["full", *queues], now)
        assert these[0] == "full"
        questions.answered(these, now)
        asked |= {*these}

    assert asked == {"full", *queues}


def test_what_is_not_there_is_asked_about_less_and_less() -> None:
    """Until it is there."""
    questions, now, asked = Questions(), 0.0, []
    while now < 10 * MAX_PAUSE:
        if questions.next(["gone"], now):
            asked.append(now)
            questions.unanswered(["gone"], now)
        now += FIRST_PAUSE / 2
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert set(pauses[7:]) == {MAX_PAUSE}

    now += MAX_PAUSE
    questions.answered(questions.next(["gone"], now), now)
    assert questions.next(["gone"], now) == ["gone"]
