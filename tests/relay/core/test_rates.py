"""One message for each token; what has none waits its turn, oldest first, and at no attempt."""

from outbox_relay.core.holds import Hold, key_of
from outbox_relay.core.message import Reason
from outbox_relay.core.pauses import Pauses
from outbox_relay.core.rates import ASK_EVERY, Rates
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
    limited.granted({"queue:mail": 4})
    assert limited.wanted(ASK_EVERY * 3) == {"queue:mail": 6}


def test_as_many_are_claimed_as_there_are_tokens() -> None:
    """They pass once, whatever comes beside them; others wait behind them."""
    limited = rates()
    limited.found(["rate:queue:mail"])
    assert limited.wishes() == {}
    limited.granted({"queue:mail": 3})

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
    limited.granted({"queue:mail": 2})
    limited.claimed([MAIL], [])

    allowed, held = limited.sort(messages(3, routing_key="mail"))

    assert ([m.id for m in allowed], len(held)) == ([1, 2], 1)


def test_a_limit_that_is_changed_keeps_its_tokens_and_one_that_ends_is_named() -> None:
    """So that what waited for it is let go."""
    limited = rates(LIMIT, Hold("task", "shop.*", per_second=1))
    limited.found(["rate:queue:mail", "rate:task:shop.*"])
    limited.granted({"queue:mail": 2, "task:shop.*": 1, "queue:unknown": 7})

    ended = limited.replace([Hold("queue", "mail", per_second=1000.0)])

    assert ended == ["rate:task:shop.*"]
    assert not limited.knows("rate:task:shop.*")
    assert limited.wanted(1.0) == {"queue:mail": 198}


def test_slow_rates_ask_for_one() -> None:
    """Six an hour are one token at a time."""
    limited = rates(Hold("all", "*", per_second=6 / 3600))
    limited.sort(messages(2))

    assert limited.wanted(0.0) == {"all": 1}


def test_what_is_found_before_the_limit_is_known_waits_for_a_token() -> None:
    """A relay that starts finds it in the database, and must not take it for what is let go."""
    waiting = Waiting(Pauses(1.0), None, None)
    waiting.found([MAIL])
    waiting.hold([LIMIT])

    assert waiting.claim(0.0, 500) is None
    assert waiting.wanted(0.0) == {"queue:mail": 10}
    waiting.granted({"queue:mail": 2})
    claim = waiting.claim(0.0, 500)
    assert claim is not None
    assert claim.limits == (2,)


def test_a_limit_that_is_set_again_holds_what_was_let_go_meanwhile() -> None:
    """What was not claimed until then waits for a token."""
    waiting = Waiting(Pauses(1.0), None, None)
    for limits in ([LIMIT], [], [LIMIT]):
        waiting.hold(limits)

    assert waiting.claim(0.0, 500) is None
