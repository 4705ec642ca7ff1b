"""Which queues the broker is asked about at each look: a few at a time, each in its turn. Pure.

A queue that is not there, or gives no answer, costs the broker a channel and a line in its log, or
the look a wait: each time it is asked about again half as soon.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

#: How many queues one look asks about.
MAX_ASKED: Final = 200
#: Between two questions about a queue that is not shown, or silent: seconds, doubled each time.
FIRST_PAUSE: Final = 1.0
MAX_PAUSE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """When a queue was asked about last, and how long it is left alone."""

    at: float
    pause: float = 0.0


NEVER: Final = _Asked(float("-inf"))


class Questions:
    """Remembers when each queue was asked about; `now` is in monotonic seconds."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    def next(self, queues: Iterable[str], now: float) -> list[str]:
        """Those of the queues to ask about now: half of them the first, the others in turn."""
        self._asked = {
            queue: asked for queue, asked in self._asked.items() if now - asked.at <= 2 * MAX_PAUSE
        }
        due = [
            (asked.at, queue)
            for queue in queues
            if now - (asked := self._asked.get(queue, NEVER)).at >= asked.pause
        ]
        first = [queue for _, queue in due[: MAX_ASKED // 2]]
        in_turn = [queue for _, queue in sorted(due)[:MAX_ASKED]]
        return list(dict.fromkeys([*first, *in_turn]))[:MAX_ASKED]

    def answered(self, queues: Iterable[str], now: float) -> None:
        """The broker told how deep these queues are."""
        for queue in queues:
            self._asked[queue] = _Asked(now)

    def unanswered(self, queues: Iterable[str], now: float) -> None:
        """The broker knows no such queues, or gave no answer about them."""
        for queue in queues:
            before = self._asked.get(queue, NEVER).pause
            self._asked[queue] = _Asked(now, min(MAX_PAUSE, max(FIRST_PAUSE, 2 * before)))
