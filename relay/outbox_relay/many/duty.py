"""What the watch of one database has to do, and when. Pure; times are in monotonic seconds.

It looks at all its schemas together, seldom, and at single ones when they ring, when the bell was
just hung up, and while an open transaction keeps it from being hung up. A schema that calls is not
watched any more until it is returned: whoever serves it has its bell.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from outbox_relay.core.backoff import LOOK_EVERY
from outbox_relay.postgres.lookout import Glance

#: Between two looks where nobody can be rung, in seconds.
LOOK_EVERY_DEAF: Final = 0.5
#: While a transaction is open that has made work: between two attempts to be rung for its schema.
TRY_AGAIN: Final = 0.03
MAX_TRY_AGAIN: Final = 0.3
#: Where another relay is rung.
TRY_OTHERS: Final = 10.0
#: What waits for a route or a hold is tried so often, twice as seldom each time in vain.
WAITING_AGAIN: Final = 5.0
MAX_WAITING_AGAIN: Final = 120.0
#: Where a look has shown work and whoever came found none: so long until it is believed again.
DOUBT: Final = 0.1
MAX_DOUBT: Final = 10.0
#: More schemas at once are looked at with all the others.
FEW: Final = 4


@dataclass(slots=True)
class _Watched:
    hung: bool = False
    try_at: float = 0.0
    try_again: float = TRY_AGAIN
    due_at: float = float("inf")
    doubt: float = 0.0  # how long the next return is not believed
    believed_at: float = 0.0
    waiting_again: float = WAITING_AGAIN
    waiting_at: float = 0.0


class Duty:
    """The schemas of one database, by name: those that are watched, and those that have called."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._served: dict[str, _Watched] = {}
        self._urgent: set[str] = set()
        self._next_look = 0.0
        self.deaf = False

    def watches(self, name: str) -> bool:
        """Whether it looks after this one now."""
        return name in self._watched

    def has_called(self, name: str) -> bool:
        """Whether this one has called and was not returned yet: somebody serves it."""
        return name in self._served

    def knows(self, name: str) -> bool:
        """Whether it looks after this one, or somebody serves it."""
        return self.watches(name) or self.has_called(name)

    def add(self, name: str) -> None:
        """Look after this one from now on, and look at it at once."""
        self._watched[name] = _Watched()
        self._urgent.add(name)

    def drop(self, name: str) -> None:
        """Forget it."""
        self._watched.pop(name, None)
        self._served.pop(name, None)
        self._urgent.discard(name)

    def returned(self, name: str, now: float, *, moved: bool) -> None:
        """Whoever served it has gone; `moved` if there was anything to publish."""
        if (each := self._served.pop(name, None)) is None:
            return
        if moved:
            each.doubt, each.waiting_again = 0.0, WAITING_AGAIN
        else:
            each.doubt = min(MAX_DOUBT, 2 * each.doubt or DOUBT)
            each.waiting_again = min(MAX_WAITING_AGAIN, 2 * each.waiting_again)
        each.believed_at, each.waiting_at = now + each.doubt, now + each.waiting_again
        each.hung, each.try_at, each.try_again = False, 0.0, TRY_AGAIN
        self._watched[name] = each
        self._urgent.add(name)

    def to_lie_down(self, now: float) -> list[str]:
        """Those for which to try to be rung."""
        if self.deaf:
            return []
        return [n for n, each in self._watched.items() if not each.hung and each.try_at <= now]

    def lay_down(self, tried: Iterable[str], hung: set[str], others: set[str], now: float) -> None:
        """It is rung for those that are hung; for others, some other relay is."""
        for name in tried:
            each = self._watched[name]
            each.hung = name in hung
            if name in others:
                each.try_at = now + TRY_OTHERS
                continue
            self._urgent.add(name)  # what was committed before rings nobody
            if not each.hung:
                each.try_at = now + each.try_again
                each.try_again = min(MAX_TRY_AGAIN, 2 * each.try_again)

    def rang(self, names: Iterable[str]) -> None:
        """Something was committed in these."""
        for name in names:
            if (each := self._watched.get(name)) is not None:
                self._urgent.add(name)
                each.believed_at = each.waiting_at = 0.0

    def to_look(self, now: float) -> tuple[list[str], bool]:
        """Whom to look at now, and whether together: everyone's time has come, or many ring."""
        urgent = [name for name in self._urgent if name in self._watched]
        self._urgent.clear()
        if now >= self._next_look or len(urgent) > FEW:
            self._next_look = now + (LOOK_EVERY_DEAF if self.deaf else LOOK_EVERY)
            return list(self._watched), True
        return urgent, False

    def seen(self, glances: Mapping[str, Glance], now: float) -> None:
        """What was there; who has something to do calls."""
        for name, glance in glances.items():
            if (each := self._watched.get(name)) is None:
                continue
            each.due_at = float("inf") if glance.due is None else now + glance.due
            if glance.work:
                each.due_at = min(each.due_at, now)
            elif glance.waits:
                each.due_at = min(each.due_at, max(now, each.waiting_at))

    def calls(self, now: float) -> list[str]:
        """Those that have something to do now: from here on they are not watched."""
        found = [n for n, w in self._watched.items() if w.due_at <= now >= w.believed_at]
        for name in found:
            self._served[name] = self._watched.pop(name)
        return found

    def pause(self, now: float) -> float:
        """Seconds until there is something to do, if nothing rings."""
        if self._urgent:
            return 0.0
        times = [self._next_look]
        for each in self._watched.values():
            times.append(max(each.due_at, each.believed_at))
            if not (each.hung or self.deaf):
                times.append(each.try_at)
        return max(0.0, min(times) - now)

    def start_over(self) -> None:
        """The session is another one: nothing is hung up, and everything is to be looked at."""
        self._next_look = 0.0
        for each in (*self._watched.values(), *self._served.values()):
            each.hung, each.try_at = False, 0.0
