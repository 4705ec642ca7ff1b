"""What is known to exist on a broker, in bounded memory: what was not needed lately is forgotten.

Two generations instead of an order of use: a look at a whole batch costs as little as with one set.
"""

from collections.abc import Iterable
from typing import Final

from outbox_relay.broker.amqp.errand import Need

#: How much a generation may hold: the characters of its needs, and their number.
MAX_SIZE: Final = 4 << 20
MAX_NEEDS: Final = 10_000


class Known:
    """Needs that were declared, or found to exist."""

    def __init__(self, max_size: int = MAX_SIZE, max_needs: int = MAX_NEEDS) -> None:
        self._max_size, self._max_needs = max_size, max_needs
        self._young: set[Need] = set()
        self._old: set[Need] = set()
        self._size = 0  # of the young

    def __contains__(self, need: Need) -> bool:
        if need in self._young:
            return True
        if need in self._old:
            self.add(need)
            return True
        return False

    def has_all(self, needs: Iterable[Need]) -> bool:
        """Whether all of them were needed lately; one that was not may be known all the same."""
        return self._young.issuperset(needs)

    def add(self, need: Need) -> None:
        """It exists."""
        size = sum(map(len, need))
        if self._size + size > self._max_size or len(self._young) >= self._max_needs:
            self._old, self._young, self._size = self._young, set(), 0
        self._young.add(need)
        self._size += size

    def discard(self, need: Need) -> None:
        """It may not exist any more."""
        if need in self._young:
            self._young.remove(need)
            self._size -= sum(map(len, need))
        self._old.discard(need)
