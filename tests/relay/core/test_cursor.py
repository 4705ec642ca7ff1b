"""Wherever a claim starts reading, nothing due stays unseen for longer than a second.

Where a look from the head takes longer than a tenth of that: than ten times as long, or a minute.
"""

from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.core.cursor import HEAD, SWEEP_SECONDS, Cursor


def test_the_first_look_is_from_the_head() -> None:
    """A relay that starts knows nothing of what an earlier one left behind."""
    assert Cursor().floor(1000.0) == HEAD


def test_full_batches_go_on_from_the_front() -> None:
    """While there is more than enough, nobody looks behind."""
    cursor = Cursor()
    cursor.floor(0.0)
    cursor.claimed([3, 1, 2], limit=3)

    assert cursor.floor(0.1) == 3


def test_a_short_batch_looks_behind_at_once() -> None:
    """With little to do, a late commit of an early id is found by the next look, not the sweep."""
    cursor = Cursor()
    cursor.floor(0.0)
    cursor.claimed([5, 6], limit=2)
    cursor.claimed([8], limit=2)

    assert cursor.floor(0.1) == HEAD


def test_a_sweep_comes_every_second_even_under_load() -> None:
    """Full batches never keep the head waiting."""
    cursor = Cursor()
    cursor.floor(0.0)
    cursor.claimed([10, 11], limit=2)

    assert cursor.floor(SWEEP_SECONDS - 0.01) == 11
    assert cursor.floor(SWEEP_SECONDS) == HEAD


def test_a_sweep_that_takes_long_takes_a_tenth_of_the_time() -> None:
    """Among dead entries, while somebody holds the horizon; the trail goes on behind the front."""
    cursor = Cursor()
    assert cursor.floor(0.0) == HEAD
    cursor.looked(2.0)
    floors = []
    for second in range(1, 20):
        cursor.claimed([10 * second], limit=2)
        floors.append(cursor.floor(float(second)))
        cursor.looked(0.001)

    assert HEAD not in floors[2:]
    assert floors[-1] == 10 * 18
    assert cursor.floor(20.0) == HEAD
    cursor.looked(0.01)
    assert cursor.floor(21.0) == HEAD


def test_a_sweep_comes_once_a_minute_whatever_it_takes() -> None:
    """A late commit is found."""
    cursor = Cursor()
    cursor.floor(0.0)
    cursor.claimed([10], limit=1)
    cursor.looked(100.0)

    assert cursor.floor(59.0) != HEAD
    assert cursor.floor(60.0) == HEAD


def test_rewinding_looks_from_the_head() -> None:
    """Rows given back lie below the front."""
    cursor = Cursor()
    cursor.floor(0.0)
    cursor.claimed([10, 11], limit=2)
    cursor.rewind()

    assert cursor.floor(0.1) == HEAD


def test_an_empty_claim_moves_nothing() -> None:
    """Finding nothing is no reason to forget where the front was."""
    cursor = Cursor()
    cursor.floor(0.0)
    cursor.claimed([10, 11], limit=2)
    cursor.claimed([], limit=2)
    cursor.floor(SWEEP_SECONDS)

    assert cursor.floor(SWEEP_SECONDS + 0.1) == 11


arrivals = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 400)), min_size=1, max_size=60)


@given(arrivals, st.integers(1, 5))
def test_whatever_commits_in_whatever_order_is_claimed_within_a_second(
    commits: list[tuple[int, int]], limit: int
) -> None:
    """Ids become visible in any order while a claim is made every tenth of a second, in no time.

    A second after the last commit, plus the time that many claims take, the table is empty.
    """
    cursor, visible, claimed, now = Cursor(), set[int](), set[int](), 0.0

    def claim() -> None:
        floor = cursor.floor(now)
        ids = sorted(id_ for id_ in visible if id_ > floor)[:limit]
        visible.difference_update(ids)
        claimed.update(ids)
        cursor.claimed(ids, limit)

    for looks, id_ in commits:
        if id_ not in claimed:
            visible.add(id_)
        for _ in range(looks):
            now += 0.1
            claim()
    for _ in range(10 + 11 * len(visible)):
        now += 0.1
        claim()

    assert not visible
