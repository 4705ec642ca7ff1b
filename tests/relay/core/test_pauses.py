"""A route that refuses is left alone but for a probe now and then, and comes back step by step."""

from collections.abc import Iterable
from math import inf

import pytest

from outbox_relay.core import pauses as pauses_module
from outbox_relay.core.claim import RouteClaim
from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.core.pauses import MAX_PAUSE, MAX_ROUTES, PROBE_PATIENCE, Pauses, written
from tests.relay.messages import a_message

FULL = ("", "full")


def to(route: tuple[str, str], id_: int = 1) -> Message:
    """A message for that route."""
    return a_message(id=id_, exchange=route[0], routing_key=route[1])


def no(message: Message, reason: Reason = Reason.NACKED) -> Refusal:
    """It came back."""
    return Refusal(message, reason, "no room")


def paused(reason: Reason = Reason.NACKED) -> Pauses:
    """With one route that refused at the time 0."""
    pauses = Pauses(1.0)
    pauses.refused([no(to(FULL), reason)], 0.0)
    return pauses


def wake(pauses: Pauses, now: float, waiting: Iterable[int]) -> list[Message]:
    """Claim of the messages that wait as many as it wants, and see that they are let through."""
    ids = list(waiting)
    claim = pauses.claim(now, 10_000)
    if claim is None:
        return []
    (limit,) = claim.limits
    pauses.claimed(claim, [(id_, written(FULL)) for id_ in ids[:limit]], now)
    messages = [to(FULL, id_) for id_ in ids[:limit]]
    assert all(pauses.let_through(message, now) for message in messages)
    return messages


@pytest.mark.parametrize("reason", [Reason.NACKED, Reason.FORBIDDEN, Reason.UNANSWERED])
def test_a_route_that_refuses_is_held(reason: Reason) -> None:
    """Others are not."""
    pauses = paused(reason)

    assert not pauses.let_through(to(FULL), 0.5)
    assert pauses.let_through(to(("", "other")), 0.5)
    assert pauses.let_through(to(("full", "full")), 0.5)
    assert "no room" in pauses.held(to(FULL)).detail


def test_what_was_let_through_before_its_route_refused_is_held() -> None:
    """Suspects are asked about twice: a thousand of them must not all run into the same refusal."""
    other = ("", "other")
    pauses = paused()
    for id_ in (1, 2):
        assert pauses.let_through(to(other, id_), 0.1)
        pauses.keep_letting_through(to(other, id_))
    pauses.refused([no(to(other, 1), Reason.FORBIDDEN)], 0.2)

    assert not pauses.let_through(to(other, 2), 0.3)


@pytest.mark.parametrize("reason", sorted(set(Reason) - pauses_module.PAUSING))
def test_other_reasons_are_the_message_s_own(reason: Reason) -> None:
    """They say nothing of the next one for the same route."""
    assert paused(reason).let_through(to(FULL), 0.5)


def test_pauses_grow_up_to_a_minute() -> None:
    """From one second; a probe is what a pause costs."""
    pauses, now, probes = paused(), 0.0, 1
    while now < 600:
        if pauses.let_through(to(FULL), now):
            assert not pauses.let_through(to(FULL, 2), now)  # one at a time
            pauses.refused([no(to(FULL))], now)
            probes += 1
        now += 0.25
    last = now
    while not pauses.let_through(to(FULL), now):
        now += 0.25

    assert 13 <= probes <= 17
    assert now - last <= 1.25 * MAX_PAUSE + 1


def test_what_was_in_flight_prolongs_nothing() -> None:
    """Four thousand refusals of one moment are one."""
    pauses = paused()
    pauses.refused([no(to(FULL, n)) for n in range(4000)], 0.2)

    assert pauses.let_through(to(FULL), 1.3)


def test_the_rest_follows_in_growing_portions() -> None:
    """Each portion only once all of the one before is confirmed."""
    pauses, waiting, portions = paused(), list(range(1, 3001)), []
    for _ in range(20):
        woken = wake(pauses, 2.0, waiting)
        if not woken:
            break
        portions.append(len(woken))
        del waiting[: len(woken)]
        pauses.confirmed(woken[:-1], 2.0)
        assert len(woken) == 1 or not wake(pauses, 2.0, waiting)
        pauses.confirmed(woken[-1:], 2.0)

    assert portions == [1, 4, 16, 64, 256, 1024, 1024, 611]


def test_a_route_none_waits_for_takes_everything() -> None:
    """It is forgotten as soon as that is seen."""
    pauses = paused()
    pauses.confirmed(wake(pauses, 2.0, [1]), 2.0)
    wake(pauses, 2.0, [])

    assert len(pauses) == 0
    assert all(pauses.let_through(to(FULL, n), 2.0) for n in range(100))


def test_a_refusal_within_a_portion_pauses_again() -> None:
    """For a second, as the queue had just taken one; the rest of the portion prolongs nothing."""
    pauses = paused()
    pauses.refused([no(m) for m in wake(pauses, 2.0, [1])], 2.0)
    pauses.confirmed(wake(pauses, 5.0, [1]), 5.0)
    pauses.refused([no(m) for m in wake(pauses, 5.0, [2, 3, 4, 5])], 5.0)

    assert not pauses.let_through(to(FULL), 5.9)
    assert pauses.let_through(to(FULL), 6.3)


def test_a_lost_probe_is_followed_by_another() -> None:
    """Its claim may have ended, and nobody would say so."""
    pauses = paused()
    assert len(wake(pauses, 2.0, [1])) == 1
    assert not wake(pauses, 2.0 + PROBE_PATIENCE / 2, [1])
    assert len(wake(pauses, 2.1 + PROBE_PATIENCE, [1])) == 1


def test_routes_found_in_the_database_are_probed() -> None:
    """A relay that was started again knows of none."""
    pauses = Pauses(1.0)
    pauses.found_waiting([written(FULL)])

    assert pauses.claim(0.0, 100) == RouteClaim((written(FULL),), (1,))
    assert [message.id for message in wake(pauses, 0.0, [7])] == [7]
    assert not pauses.let_through(to(FULL, 8), 0.0)


def test_only_forbidden_routes_are_tried_apart() -> None:
    """There the probe takes its channel with it, and whatever is on it."""
    assert paused(Reason.FORBIDDEN).apart(to(FULL))
    assert not paused(Reason.NACKED).apart(to(FULL))


def test_its_memory_is_bounded() -> None:
    """Routes without end do not fill it."""
    pauses = Pauses(1.0)
    for number in range(MAX_ROUTES + 100):
        pauses.refused([no(to(("", f"q{number}")))], 0.0)

    assert len(pauses) == MAX_ROUTES


def test_a_silent_route_that_confirms_after_all_is_tried_at_once() -> None:
    """It has stored what it was sent: the rest need not wait for the end of the pause."""
    pauses = Pauses(1.0)
    message = a_message()
    pauses.refused([Refusal(message, Reason.UNANSWERED, "no confirm")], 0.0)
    assert pauses.claim(0.5, 10) is None

    pauses.confirmed([message], 0.5)

    probe = pauses.claim(0.5, 10)
    assert probe is not None
    assert probe.limit == 1


def test_it_is_known_when_something_may_go() -> None:
    """A relay sleeps until then; a portion may go at once, and so may what has just been found."""
    pauses = paused()
    assert 0.9 <= pauses.pause(0.0) <= 1.25
    assert pauses.pause(2.0) <= 0

    assert Pauses(1.0).pause(0.0) == inf
    other = Pauses(1.0)
    other.found_waiting(["\x1fcelery"])
    assert other.pause(0.0) <= 0
