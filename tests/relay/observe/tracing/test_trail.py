"""What the loop notes ends in batches, once each, and takes bounded memory."""

from collections.abc import Sequence
from typing import Any

import pytest

from outbox_relay.core.message import Message, Parking, Reason, Refusal
from outbox_relay.observe.tracing import trail as trail_module
from outbox_relay.observe.tracing.trail import Ending, Trail
from tests.relay.messages import a_message

SENT = '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0%d"}'


class Ended(list[Sequence[Ending]]):
    """What was handed on: a list of each batch's."""


def traced(count: int, **columns: Any) -> list[Message]:
    """So many messages with sampled senders, from id 1."""
    return [a_message(id=n, headers=SENT % 1, **columns) for n in range(1, count + 1)]


@pytest.fixture
def ended() -> Ended:
    """What the trail hands on."""
    return Ended()


@pytest.fixture
def trail(ended: Ended) -> Trail:
    """A trail on which nothing is noted."""
    return Trail(ended.append)


def refuse(trail: Trail, message: Message, reason: Reason, state: str, now: float) -> None:
    """The message is refused, and parked so."""
    parking = Parking(message, state, message.attempts + 1, 0, 1.0, "why")
    trail.parked([Refusal(message, reason, "why")], [parking], now)


def test_a_batch_is_handed_on_once_all_of_it_has_ended(trail: Trail, ended: Ended) -> None:
    """However its messages end, and with the untraced counted."""
    one, two = traced(2, born=1.0)
    others = [a_message(id=n) for n in (3, 4)]
    trail.claimed([one, two, *others], 2.0)
    trail.published([one, two, *others], 3.0)
    trail.confirmed([one, *others], 4.0)
    assert not ended
    refuse(trail, two, Reason.NACKED, "retry", 5.0)
    ((first, second),) = ended
    assert first.traced.batch == second.traced.batch
    assert first.traced.batch is not None
    assert (first.traced.batch.messages, first.traced.batch.published) == (4, 3.0)
    assert (first.confirmed, first.at) == (True, 4.0)
    assert (second.reason, second.state, second.at) == ("nacked", "retry", 5.0)
    assert (first.traced.waiting, first.traced.claimed) == (1.0, 2.0)


def test_what_is_not_sampled_is_not_noted(trail: Trail, ended: Ended) -> None:
    """Nor what has no sender."""
    messages = [a_message(id=1, headers=SENT % 0), a_message(id=2)]
    trail.claimed(messages, 1.0)
    trail.published(messages, 2.0)
    trail.confirmed(messages, 3.0)
    assert not ended


def test_what_is_in_flight_when_a_connection_is_lost_ends(trail: Trail, ended: Ended) -> None:
    """Nobody knows how; what was only claimed has not been tried."""
    one, two = traced(2)
    trail.claimed([one, two], 1.0)
    trail.published([one], 2.0)
    trail.lost(3.0)
    trail.lost(4.0)
    (((ending),),) = ended
    assert (ending.traced.id, ending.reason, ending.state) == (1, "connection_lost", "")


def test_the_next_wait_begins_with_the_refusal(trail: Trail, ended: Ended) -> None:
    """And not with the commit, which another span has told of."""
    (message,) = traced(1, born=1.0)
    trail.claimed([message], 2.0)
    refuse(trail, message, Reason.UNROUTABLE, "retry", 3.0)
    trail.claimed([message._replace(attempts=1)], 5.0)
    trail.confirmed([message], 6.0)
    assert [each[0].traced.waiting for each in ended] == [1.0, 3.0]


def test_what_was_held_was_not_tried(trail: Trail, ended: Ended) -> None:
    """The wait goes on, and tells what held it."""
    (message,) = traced(1, born=1.0)
    for at in (2.0, 3.0):
        trail.claimed([message], at)
        refuse(trail, message, Reason.PAUSED, "retry", at)
    trail.claimed([message], 4.0)
    trail.confirmed([message], 5.0)
    ((ending,),) = ended
    assert ending.traced.waiting == 1.0
    assert [(held.at, held.reason) for held in ending.traced.held] == [
        (2.0, "paused"),
        (3.0, "paused"),
    ]


def test_a_suspect_has_no_batch(trail: Trail, ended: Ended) -> None:
    """It is published in quarantine, by itself."""
    (message,) = traced(1, suspicion=1)
    trail.claimed([message], 1.0)
    trail.confirmed([message], 2.0)
    ((ending,),) = ended
    assert ending.traced.batch is None
    assert ending.traced.suspect


def test_memory_is_bounded(trail: Trail, ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever never ends, is claimed again, or is never seen again."""
    monkeypatch.setattr(trail_module, "MAX_TRACED", 10)
    for begin in range(0, 100, 5):
        some = [a_message(id=begin + n, headers=SENT % 1) for n in range(5)]
        trail.claimed(some, 1.0)
        trail.published(some, 2.0)
        refuse(trail, some[0], Reason.NACKED, "retry", 3.0)
        trail.claimed([some[0]], 4.0)
    sizes = [len(value) for value in vars(trail).values() if isinstance(value, dict)]
    assert len(sizes) == 3
    assert max(sizes) <= 10
