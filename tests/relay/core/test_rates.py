"""One message for each token; what has none waits its turn, oldest first, and at no attempt."""

from outbox_relay.core.holds import Hold, key_of
from outbox_relay.core.message import Reason
from outbox_relay.core.pauses import Pauses
from outbox_relay.core.rates import ASK_EVERY, MAX_PAUSE, Grant, Rates
from outbox_relay.core.waiting import Waiting
from tests.relay.messages import a_message, messages

LIMIT = Hold("queue", "mail", per_second=50.0)
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
    assert limited.wishes() == {}
    limited.granted([Grant("queue:mail", 3, 0.0)], 0.0)

    assert limited.wishes() == {MAIL: 3}
    limited.claimed([MAIL], [(1, MAIL), (2, MAIL)])

    allowed, held = limited.sort(messages(4, routing_key="mail"))
    assert [message.id for message in allowed] == [1, 2]
    assert len(held) == 2
    assert limited.wishes() == {MAIL: 1}
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

    ended = limited.replace([Hold("queue", "mail", per_second=1000.0)])

    assert ended == ["rate:task:shop.*"]
    assert not limited.knows("rate:task:shop.*")
    assert limited.wanted(1.0) == {"queue:mail": 198}


def test_slow_rates_ask_for_one() -> None:
    """Six an hour are one token at a time."""
    limited = rates(Hold("all", "*", per_second=6 / 3600))
    limited.sort(messages(2))

    assert limited.wanted(0.0) == {"all": 1}


def test_a_slow_rate_is_asked_once_for_each_token() -> None:
    """When there is one; and not while none waits for it."""
    limited, sent, asked, now = rates(Hold("all", "*", per_second=0.1)), 0, 0, 0.0
    limited.sort(messages(1))
    while sent < 100:
        now = max(now, now + limited.pause(now))
        assert limited.wanted(now) == {"all": 1}
        asked += 1
        allowed = 1 + now * 0.1 - sent
        given = 1 if allowed >= 1 else 0
        limited.granted([Grant("all", given, (1 + given - allowed) / 0.1)], now)
        limited.claimed([key_of("rate:all")], [(sent, key_of("rate:all"))] * given)
        limited.found(["rate:all"])
        sent += given
    assert 980 < now < 1_000
    assert asked <= 102

    limited.claimed([key_of("rate:all")], [])
    assert limited.wanted(now + 100) == {}
    assert limited.pause(now + 100) == float("inf")


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
