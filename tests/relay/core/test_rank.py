"""What waits is ordered as its broker's workers order it, and nothing a row says breaks that."""

import pytest

from outbox_relay.core.rank import rank_of


@pytest.mark.parametrize("priorities", [[9, 5, 1, 0], [255, 254]])
def test_rabbitmq_takes_the_highest_first(priorities: list[int]) -> None:
    """And what has no priority as if it had 0."""
    ranks = [rank_of(b'{"priority": %d}' % p, lowest_first=False) for p in priorities]

    assert ranks == sorted(ranks)
    assert rank_of(b'{"priority": 0}', lowest_first=False) == rank_of(b"{}", lowest_first=False)


def test_redis_takes_the_lowest_first() -> None:
    """What has no priority among them, as Celery does."""
    ranks = [rank_of(b'{"priority": %d}' % p, lowest_first=True) for p in (0, 3, 6, 9)]

    assert ranks == sorted(ranks)
    assert rank_of(b"{}", lowest_first=True) == ranks[0]


@pytest.mark.parametrize(
    "properties",
    [
        b"{}",
        b'{"priority": null}',
        b'{"priority": "9"}',
        b'{"priority": true}',
        b'{"priority": 1.5}',
        b'{"type": "priority"}',
        b'"priority"',
        b'{"priority": ',
    ],
)
def test_what_is_no_priority_is_none(properties: bytes) -> None:
    """Whatever else it is."""
    assert rank_of(properties, lowest_first=False) == 0


def test_what_is_beyond_all_bounds_fits_the_column() -> None:
    """The message is refused later, for that."""
    assert rank_of(b'{"priority": 99999999}', lowest_first=False) == -255
    assert rank_of(b'{"priority": -5}', lowest_first=True) == 0
