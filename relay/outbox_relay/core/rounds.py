"""When what looks every so often beside the loop goes round again: seldom while nothing moves.

An idle outbox asks little of its database and its broker. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

Quiet = Callable[[], bool]


def never() -> bool:
    """The answer for a watch that is never to slow down."""
    return False


@dataclass(slots=True)
class Rounds:
    """Decides, each time it could go round, whether to. Times are in monotonic seconds."""

    every_quiet: float
    quiet: Quiet = never
    _last: float = field(default=float("-inf"))

    def are_due(self, now: float) -> bool:
        """Whether to go round now; the next time is counted from here."""
        if self.quiet() and now - self._last < self.every_quiet:
            return False
        self._last = now
        return True
