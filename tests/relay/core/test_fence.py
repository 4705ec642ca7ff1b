"""What waits for standbys, for how long, and that it stays ours meanwhile."""

import pytest

from outbox_relay.core.claim import Claim, ClaimedRow, Fetched, Standbys
from outbox_relay.core.fence import LONG, SLOW_POLL, Fence
from outbox_relay.core.message import Held
from tests.relay.messages import a_message, messages

LEASE = 10.0


def kept(fence: Fence, position: int, since: float = 0.0, *, number: int = 7) -> Fetched:
    """Have a claim of two messages wait."""
    fetched = Fetched(messages(2), [])
    rows = [ClaimedRow(m.id, m.slot, 0, 0) for m in fetched.messages]
    fence.hold(fetched, Claim(rows, number, since, position=position))
    return fetched


def test_without_a_fence_nothing_waits() -> None:
    """Nobody is asked, and what comes goes."""
    fence = Fence(0, LEASE)
    fetched = kept(fence, 0)

    passed = fence.take()
    assert passed
    assert passed.fetched is fetched
    assert fence.next_look(99.0) == float("inf")
    assert fence.bytes == 0


def test_it_waits_until_the_standbys_have_what_its_claim_has_seen() -> None:
    """In the order of the claims; a byte less is not enough."""
    fence = Fence(1, LEASE)
    first, second = kept(fence, 100), kept(fence, 200)
    assert fence.take() is None

    fence.heard(Standbys(300, 99, 1), 0.0)
    assert fence.take() is None
    fence.heard(Standbys(300, 100, 1), 0.0)
    passed = fence.take()
    assert passed
    assert passed.fetched is first
    assert fence.take() is None
    fence.heard(Standbys(300, 250, 1), 0.0)
    passed = fence.take()
    assert passed
    assert passed.fetched is second
    assert fence.take() is None


def test_standbys_are_asked_while_something_waits_and_less_often_later() -> None:
    """At once, then every few milliseconds, then every tenth of a second."""
    fence = Fence(1, LEASE)
    assert fence.next_look(0.0) == float("inf")
    kept(fence, 100, since=5.0)
    assert fence.next_look(5.0) <= 0

    fence.heard(Standbys(300, 0, 0), 5.0)
    assert 0 < fence.next_look(5.0) < SLOW_POLL
    assert fence.complaint(5.0) is None
    late = 5.5 + LONG
    fence.heard(Standbys(300, 0, 0), late)
    assert fence.next_look(late) == pytest.approx(SLOW_POLL)
    said = fence.complaint(late)
    assert said == "2 messages wait for OUTBOX_FENCE=standby:1: 0 standbys are connected"


def test_claims_are_renewed_while_they_wait() -> None:
    """Before their lease is over; one that has ended may be another relay's by now."""
    fence = Fence(1, LEASE)
    kept(fence, 100, since=0.0, number=7)
    kept(fence, 200, since=20.0, number=8)

    assert fence.renewal(21.0) == []
    assert fence.renewal(23.0) == [Held(1, 0, 8), Held(2, 0, 8)]
    assert fence.renewal(23.0) == []
    fence.heard(Standbys(300, 300, 1), 23.0)
    assert [passed.since for _ in range(2) if (passed := fence.take())] == [0.0, 23.0]


def test_what_waits_counts_as_memory_in_use() -> None:
    """So that a claim of large bodies is the last."""
    fence = Fence(1, LEASE)
    fetched = Fetched([a_message(body=b"x" * 1000)], [])
    fence.hold(fetched, Claim([ClaimedRow(1, 0, 0, 0)], 7, 0.0, position=1))

    assert fence.bytes == fetched.messages[0].size
    assert fence.messages == 1
    fence.clear()
    assert fence.bytes == fence.messages == 0
