"""How much to do at a time of what may be very much: as much as takes a moment. Pure."""

from dataclasses import dataclass, field
from typing import Final

#: A portion that took less is followed by one twice as large; one that took longer, by half of it.
QUICK: Final = 0.025
SLOW: Final = 0.05


@dataclass(slots=True)
class Portion:
    """Its size, between `smallest` and `largest`."""

    smallest: int
    largest: int
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = self.smallest

    def took(self, seconds: float) -> None:
        """Note how long a whole portion took."""
        if seconds < QUICK:
            self.size = min(self.largest, 2 * self.size)
        elif seconds > SLOW:
            self.size = max(self.smallest, self.size // 2)
