"""No queue gets more than its limit and what is in flight; none starves, whatever a broker says."""

import json
import sys
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.core.depths import AT_FIRST, STALE, Depths, Soundings
from outbox_relay.core.holds import key_of
from outbox_relay.core.message import Message, Reason
from outbox_relay.core.questions import Questions
from tests.relay.messages import a_message, messages

MAIL = key_of("depth:mail")


def mail(count: int) -> list[Message]:
    """So many for the queue mail."""
    return messages(count, routing_key="mail")


def ask(depths: Depths, now: float = 0.0, **answer: int) -> None:
    """The broker is asked, and answers at once."""
    depths.tell(Soundings(depths.watched(), answer), now)


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
    depths.tell(Soundings(before, {"mail": 40}), 0.0)

    assert passed(depths, 5_000) == 1_000 - 40 - 30


def test_a_full_queue_opens_again_once_a_fifth_is_free() -> None:
    """Not for each message that a worker takes."""
    depths = Depths(100)
    assert passed(depths, 200) == 100
    for depth, room in ((100, 0), (90, 0), (81, 0), (80, 20)):
        ask(depths, mail=depth)
        assert passed(depths, 200) == room
        ask(depths, mail=100)


def test_what_waits_is_claimed_into_the_room_there_is() -> None:
    """Until none is left."""
    depths = Depths(100)
    passed(depths, 150)
    ask(depths, mail=100)
    assert depths.wishes(0.0) == {}

    ask(depths, mail=40)
    assert depths.wishes(0.0) == {MAIL: 60}
    depths.claimed([MAIL], [MAIL])
    assert depths.wishes(0.0) == {MAIL: 60}

    depths.claimed([MAIL], [])
    assert not depths.waiting
    assert depths.wishes(0.0) == {}


def test_a_relay_that_starts_is_told_what_waits() -> None:
    """And asks about that queue before any message for it has come."""
    depths = Depths(100)
    depths.found(["depth:mail"])

    assert depths.watched() == {"mail": 0}
    assert depths.wishes(0.0) == {MAIL: 100}


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


def test_a_queue_that_is_forgotten_while_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message for a full queue and one too many is held, and is no error."""
    monkeypatch.setattr("outbox_relay.core.depths.MAX_QUEUES", 2)
    depths = Depths(1)
    depths.sort([a_message(routing_key="a")], 0.0)
    depths.sort([a_message(routing_key="b")], 0.0)
    ask(depths, a=1, b=1)
    two = json.dumps([{"kind": "queue", "name": "a"}, {"kind": "queue", "name": "c"}])

    allowed, held = depths.sort([a_message(exchange="both", declare=two)], 0.1)

    assert (allowed, [refusal.reason for refusal in held]) == ([], [Reason.DEEP])


@given(data=st.data())
def test_no_queue_of_any_number_gets_more_than_the_limit(data: st.DataObject) -> None:
    """Though a few are asked about at a time, and not even all are remembered; and none starves."""
    limit, count = 5, data.draw(st.integers(1, 12))
    there = dict.fromkeys((f"q{n}" for n in range(count)), 0)
    depths, questions, now = Depths(limit), Questions(), 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("outbox_relay.core.depths.MAX_QUEUES", 4)
        patch.setattr("outbox_relay.core.questions.MAX_ASKED", 3)

        def step(sent: list[str]) -> None:
            nonlocal now
            now += 0.5
            passed = depths.watched()
            asked = questions.next(passed, now)
            questions.answered(asked, now)
            answers = {queue: there[queue] for queue in asked}
            depths.tell(Soundings({queue: passed[queue] for queue in asked}, answers), now)
            for queue in sent:
                allowed, _ = depths.sort([a_message(routing_key=queue)], now)
                there[queue] += len(allowed)
            assert max(there.values()) <= limit

        queues = st.lists(st.sampled_from(sorted(there)), max_size=8)
        for sent in data.draw(st.lists(queues, max_size=60)):
            step(sent)
        # Workers empty one, and whoever goes on sending to it, and to no other, is served.
        there["q0"] = 0
        for _ in range(20):
            step(["q0"])
        assert there["q0"] > 0


def test_a_queue_that_gives_no_answer_is_the_only_one_that_is_not_held() -> None:
    """And that after a while."""
    depths = Depths(10)
    for queue in ("mail", "hangs"):
        assert len(depths.sort(messages(20, routing_key=queue), 0.0)[0]) == 10

    for now in (0.0, STALE / 2, STALE + 1):
        depths.tell(Soundings(depths.watched(), {"mail": 10}, frozenset({"hangs"})), now)
        through = {
            queue: len(depths.sort(messages(20, routing_key=queue), now)[0])
            for queue in ("mail", "hangs")
        }
        assert through == {"mail": 0, "hangs": 20 if now > STALE else 0}


def test_where_nothing_passes_nothing_is_asked() -> None:
    """What was told then is believed for the first few that come after it."""
    depths = Depths(10_000)
    passed(depths, 50)
    ask(depths, mail=0)
    passed(depths, 0)
    assert depths.watched() == {}

    assert passed(depths, 500, 1_000.0) == AT_FIRST
    assert depths.watched() == {"mail": 50 + AT_FIRST}


def test_another_thread_may_ask_at_any_moment() -> None:
    """Which queues to ask about, while what waits for them is claimed."""
    depths, keys = Depths(10), [f"depth:{n}" for n in range(1_000)]
    over, answered = Event(), Event()

    def ask_again_and_again() -> None:
        while not over.is_set():
            depths.watched()
        answered.set()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        asking = Thread(target=ask_again_and_again)
        asking.start()
        for _ in range(100):
            depths.found(keys)
            for key in keys:
                depths.claimed([key_of(key)], [])
        over.set()
        asking.join(30)
    finally:
        over.set()
        sys.setswitchinterval(usual)

    assert answered.is_set()
