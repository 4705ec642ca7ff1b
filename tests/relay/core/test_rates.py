"""One message for each token; what has none waits its turn, oldest first, and at no attempt."""

from bisect import bisect_left
from dataclasses import dataclass
from math import floor
from random import Random

import pytest

from outbox_relay.core.holds import Hold, key_of
from outbox_relay.core.message import Reason
from outbox_relay.core.pauses import Pauses
from outbox_relay.core.rates import ASK_EVERY, LATE, MAX_PAUSE, Grant, Rates
from outbox_relay.core.waiting import Waiting
from tests.relay.messages import a_message, messages

LIMIT = Hold("queue", "mail", per_second=50.0, burst=50.0)
MAIL = key_of("rate:queue:mail")


def rates(*limits: Hold) -> Rates:
    """With these in force."""
    made = Rates()
    made.replace(limits or (LIMIT,))
    return made


def test_what_is_limited_waits_and_tokens_are_asked_for() -> None:
    """A fifth of a second's worth at a time, ten times a second, as long as something waits."""
    limited = rates()
    assert limited.wanted(0.0) == {}

    allowed, held = limited.sort([*messages(3, routing_key="mail"), a_message(id=9)])

    assert [message.id for message in allowed] == [9]
    assert {refusal.reason for refusal in held} == {Reason.RATED}
    assert held[0].wait is not None
    assert held[0].wait.key == MAIL
    assert held[0].detail == "queue:mail may have 50 a second"
    assert limited.wanted(ASK_EVERY) == {"queue:mail": 10}
    assert limited.wanted(ASK_EVERY * 1.5) == {}
    limited.granted([Grant("queue:mail", 4, 0.0)], 0.0)
    assert limited.wanted(ASK_EVERY * 3) == {"queue:mail": 6}


def test_as_many_are_claimed_as_there_are_tokens() -> None:
    """They pass once, whatever comes beside them; others wait behind them."""
    limited = rates()
    limited.found(["rate:queue:mail"])
    assert limited.wishes(0.0) == {}
    limited.granted([Grant("queue:mail", 3, 0.0)], 0.0)

    assert limited.wishes(0.0) == {MAIL: 3}
    limited.claimed([MAIL], [(1, MAIL), (2, MAIL)])

    allowed, held = limited.sort(messages(4, routing_key="mail"))
    assert [message.id for message in allowed] == [1, 2]
    assert len(held) == 2
    assert limited.wishes(0.0) == {MAIL: 1}
    limited.claimed([MAIL], [])
    assert not limited.waiting


def test_a_token_that_is_left_over_is_for_the_next() -> None:
    """Which need not wait for its turn, as none waits before it."""
    limited = rates()
    limited.found(["rate:queue:mail"])
    limited.granted([Grant("queue:mail", 2, 0.0)], 0.0)
    limited.claimed([MAIL], [])

    allowed, held = limited.sort(messages(3, routing_key="mail"))

    assert ([m.id for m in allowed], len(held)) == ([1, 2], 1)


def test_a_limit_that_is_changed_keeps_its_tokens_and_one_that_ends_is_named() -> None:
    """So that what waited for it is let go."""
    limited = rates(LIMIT, Hold("task", "shop.*", per_second=1))
    limited.found(["rate:queue:mail", "rate:task:shop.*"])
    limited.granted(
        [Grant("queue:mail", 2, 0.0), Grant("task:shop.*", 1, 0.0), Grant("queue:unknown", 7, 0.0)],
        0.0,
    )

    ended = limited.replace([Hold("queue", "mail", per_second=1000.0, burst=1000.0)])

    assert ended == ["rate:task:shop.*"]
    assert not limited.knows("rate:task:shop.*")
    assert limited.wanted(1.0) == {"queue:mail": 198}


def test_slow_rates_ask_for_one() -> None:
    """Six an hour are one token at a time."""
    limited = rates(Hold("all", "*", per_second=6 / 3600))
    limited.sort(messages(2))

    assert limited.wanted(0.0) == {"all": 1}


@dataclass
class Bucket:
    """As the database has it: see `outbox.take_tokens`."""

    per_second: float
    burst: float
    tokens: float
    at: float = 0.0

    def take(self, wanted: int, now: float) -> Grant:
        """As many as are there or soon will be."""
        there = min(self.burst, self.tokens + self.per_second * (now - self.at))
        given = max(0, min(wanted, floor(there + 0.2 * self.per_second)))
        if given:
            self.tokens, self.at = there - given, now
        return Grant("all", given, (1 + given - there) / self.per_second)


def backlog(
    per_second: float, burst: float, *, relays: int = 1, seconds: float = 60.0, late: float = 0.005
) -> tuple[list[float], int]:
    """When messages of an endless backlog go, and how often tokens were asked for.

    Each relay comes round at random, within so many seconds after it has something to do.
    """
    chance, bucket = Random(17), Bucket(per_second, burst, burst)
    limit, key = Hold("all", "*", per_second=per_second, burst=burst), key_of("rate:all")
    limited = [rates(limit) for _ in range(relays)]
    for each in limited:
        each.found(["rate:all"])
    sent: list[float] = []
    asked, times = 0, [0.0] * relays
    while (now := min(times)) < seconds:
        relay = limited[place := times.index(now)]
        if "all" in (wanted := relay.wanted(now)):
            asked += 1
            relay.granted([bucket.take(wanted["all"], now)], now)
        if count := relay.wishes(now).get(key):
            relay.claimed([key], [(len(sent) + n, key) for n in range(count)])
            sent += [now] * count
        times[place] = now + max(0.0, relay.pause(now)) + chance.uniform(0.0001, late)
    return sent, asked


@pytest.mark.parametrize("relays", [1, 3])
@pytest.mark.parametrize("burst", [1, 1.5, 10])
@pytest.mark.parametrize("per_second", [0.5, 5, 50, 500])
def test_a_rate_is_kept_whatever_the_burst(per_second: float, burst: float, relays: int) -> None:
    """To a twentieth over a minute, after the burst; and no window has more than it allows.

    A message that goes a little late does not put off the next: that is all a window may have more.
    """
    late = 0.005
    sent, _ = backlog(per_second, burst, relays=relays, late=late)

    assert abs(len(sent) - burst - 60 * per_second) <= max(1, 3 * per_second)
    for first, time in enumerate(sent):
        for seconds in (0.0, 1 / per_second, 1.0):
            there = bisect_left(sent, time + seconds + 1e-9) - first
            assert there <= burst + per_second * (seconds + late) + 1e-6


def test_a_relay_that_comes_round_seldom_keeps_the_rate() -> None:
    """Up to a fifth of a second late, even where one at a time is all that may go."""
    sent, _ = backlog(50, 1, late=0.1)

    assert abs(len(sent) - 3_000) <= 150


def test_a_slow_rate_is_asked_once_for_each_token() -> None:
    """A little ahead of its time; and not while none waits for it."""
    sent, asked = backlog(0.1, 1, seconds=1_000)
    assert 99 <= len(sent) <= 101
    assert asked <= 102

    limited = rates(Hold("all", "*", per_second=0.1))
    limited.sort(messages(1))
    limited.granted([Grant("all", 1, 10.0)], 0.0)
    limited.claimed([key_of("rate:all")], [])
    assert limited.wanted(100) == {}
    assert limited.pause(100) == float("inf")


def test_no_more_than_the_burst_is_kept_for_what_comes_later() -> None:
    """Tokens that nothing waits for are given up once there are too many, and after a while."""
    for now, expected in ((0.1, 2), (0.1 + 2 * LATE, 0)):
        limited = rates(Hold("all", "*", per_second=100.0, burst=2.0))
        limited.found(["rate:all"])
        limited.granted([Grant("all", 10, 0.01)], 0.0)
        limited.claimed([key_of("rate:all")], [])
        limited.wanted(now)

        assert len(limited.sort(messages(10))[0]) == expected


def test_a_very_slow_rate_may_be_made_anew() -> None:
    """So it is looked at now and then; one that is changed, at once."""
    limited = rates(Hold("all", "*", per_second=0.0001))
    limited.sort(messages(1))
    limited.granted([Grant("all", 0, 10_000.0)], 0.0)
    assert limited.wanted(MAX_PAUSE - 1) == {}
    assert limited.wanted(MAX_PAUSE) == {"all": 1}

    limited.granted([Grant("all", 0, 10_000.0)], MAX_PAUSE)
    limited.replace([Hold("all", "*", per_second=1.0)])
    assert limited.wanted(MAX_PAUSE) == {"all": 1}


def test_what_is_found_before_the_limit_is_known_waits_for_a_token() -> None:
    """A relay that starts finds it in the database, and must not take it for what is let go."""
    waiting = Waiting(Pauses(1.0), None, None)
    waiting.found([MAIL])
    waiting.hold([LIMIT])

    assert waiting.claim(0.0, 500) is None
    assert waiting.wanted(0.0) == {"queue:mail": 10}
    waiting.granted([Grant("queue:mail", 2, 0.0)], 0.0)
    claim = waiting.claim(0.0, 500)
    assert claim is not None
    assert claim.limits == (2,)


def test_a_limit_that_is_set_again_holds_what_was_let_go_meanwhile() -> None:
    """What was not claimed until then waits for a token."""
    waiting = Waiting(Pauses(1.0), None, None)
    for limits in ([LIMIT], [], [LIMIT]):
        waiting.hold(limits)

    assert waiting.claim(0.0, 500) is None
