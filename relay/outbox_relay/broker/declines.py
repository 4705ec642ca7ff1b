"""Refused declarations in the log: the first at once, then at most one line a minute for all.

One row can have the same declaration refused at each attempt, on every connection there is: what
was logged last is remembered for the whole process.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

log = structlog.get_logger()

#: At most one line in so many seconds.
LOG_EVERY: Final = 60.0


class Declines:
    """Counts what the broker would not declare."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._logged = float("-inf")
        self._since = 0

    def add(self, entity: object, reason: str) -> None:
        """One more was refused; the line names it, and says how many there were since the last."""
        self._since += 1
        if (now := self._clock()) - self._logged >= LOG_EVERY:
            log.warning(
                "declare_refused", declarations=self._since, entity=str(entity), reason=reason
            )
            self._logged, self._since = now, 0


DECLINES: Final = Declines()
