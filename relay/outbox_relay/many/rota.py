"""Whose turn it is: everyone's within a period of theirs, and those of many spread out. Pure."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Rota:
    """Remembers when each had its turn; times are in monotonic seconds."""

    _last: dict[str, float] = field(default_factory=dict)

    def next(self, often: Mapping[str, float], now: float) -> str | None:
        """The one that is most overdue of these, which have a turn so often; it begins now."""
        self._last = {
            name: self._last.get(name, now - every * random.random())
            for name, every in often.items()
        }
        due = {name: self._last[name] + every for name, every in often.items()}
        first = min(due, key=due.__getitem__, default=None)
        if first is None or due[first] > now:
            return None
        self._last[first] = now
        return first
