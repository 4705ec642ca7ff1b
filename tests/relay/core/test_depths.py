"""No queue gets more than its limit and what is in flight; none starves, whatever a broker says."""

from outbox_relay.core.depths import AT_FIRST, STALE, Depths, Soundings
from outbox_relay.core.holds import key_of
from outbox_relay.core.message import Message, Reason
from tests.relay.messages import a_message, messages

MAIL = key_of("depth:mail")


def mail(count: int) -> list[Message]:
    """So many for the queue mail."""
    return messages(count, routing_key="mail")


def ask(depths: Depths, **answer: int) -> None:
    """The broker is asked, and answers at once."""
    depths.tell(Soundings(depths.watched(), answer))


def passed(depths: Depths, count: int, now: float = 0.0) -> int:
    """How many of so many pass."""
    allowed, held = depths.sort(mail(count), now)
    assert len(allowed) + len(held) == count
    return len(allowed)


def test_what_is_beyond_the_limit_waits_for_room() -> None:
    """At no attempt, under a key of its queue; other queues are not touched."""
    depths = Depths(10)

    allowed, held = depths.sort([*mail(12), a_message(id=99, routing_key="other")], 0.0)

    assert [message.id for message in allowed] == [*range(1, 11), 99]
    assert {refusal.reason for refusal in held} == {Reason.DEEP}
    assert held[0].wait is not None
    assert held[0].wait.key == MAIL
    assert "queue 'mail' has 10 messages" in held[0].detail
    assert depths.waiting


def test_little_passes_before_the_first_answer() -> None:
    """A queue may be full already."""
    depths = Depths(10_000)
    assert passed(depths, 500) == AT_FIRST

    ask(depths, mail=9_000)
    assert passed(depths, 5_000) == 1_000


def test_what_passed_since_the_question_counts() -> None:
    """The broker cannot have seen it."""
    depths = Depths(1_000)
    passed(depths, 50)
    before = depths.watched()
    passed(depths, 30)
    depths.tell(Soundings(before, {"mail": 40}))

    assert passed(depths, 5_000) == 1_000 - 40 - 30


def test_a_full_queue_opens_again_once_a_fifth_is_free() -> None:
    """Not for each message that a worker takes."""
    depths = Depths(100)
    assert passed(depths, 200) == 100
    for depth, room in ((100, 0), (90, 0), (81, 0), (80, 20)):
        ask(depths, mail=depth)
        assert passed(depths, 200) == room
        depths.tell(Soundings(depths.watched(), {"mail": 100}))


def test_what_waits_is_claimed_into_the_room_there_is() -> None:
    """Half of a claim at most, until none is left."""
    depths = Depths(100)
    passed(depths, 150)
    ask(depths, mail=100)
    assert depths.claim(0.0, 500) is None

    ask(depths, mail=40)
    claim = depths.claim(0.0, 500)
    assert claim is not None
    assert (claim.routes, claim.limits) == ((MAIL,), (60,))
    assert depths.claim(0.0, 80) is not None
    small = depths.claim(0.0, 80)
    assert small is not None
    assert small.limits == (40,)

    depths.claimed([MAIL], [])
    assert not depths.waiting
    assert depths.claim(0.0, 500) is None


def test_a_relay_that_starts_is_told_what_waits() -> None:
    """And asks about that queue before any message for it has come."""
    depths = Depths(100)
    depths.found(["depth:mail"])

    assert depths.watched() == {"mail": 0}
    claim = depths.claim(0.0, 500)
    assert claim is not None
    assert claim.limits == (100,)


def test_a_broker_that_does_not_tell_starves_nobody() -> None:
    """A queue that it does not show counts as empty; where nothing is heard, none is held."""
    depths = Depths(10)
    assert passed(depths, 20) == 10
    ask(depths)
    assert passed(depths, 20) == 10
    assert passed(depths, 20, STALE) == 0
    assert passed(depths, 20, STALE + 1) == 20


def test_a_broker_that_lies_is_believed_as_far_as_it_can_be() -> None:
    """A depth below nothing is nothing; one beyond all measure holds its own queue alone."""
    depths = Depths(10)
    passed(depths, 20)
    ask(depths, mail=-5)
    assert passed(depths, 20) == 10
    ask(depths, mail=1 << 60)
    allowed, _ = depths.sort([*mail(3), a_message(id=99, routing_key="other")], 0.0)
    assert [message.id for message in allowed] == [99]


def test_an_exchange_whose_queues_are_not_known_is_not_held() -> None:
    """What is bound to it, the row does not tell."""
    depths = Depths(1)
    fanout = [a_message(id=n, exchange="events") for n in range(5)]

    assert depths.sort(fanout, 0.0) == (fanout, [])
