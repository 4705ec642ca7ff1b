"""How much more a broker of bounded memory may get, so that messages never fill it. Pure.

The broker tells now and then how much of its memory is used; in between it is reckoned what was let
through, at what that takes there. Up to a share of the memory all goes. Beyond it each queue gets
but a few messages ahead of its workers, the fewer the less is left: what workers take flows on, and
what would pile up waits. That ends when a tenth of the share is free again.

A broker that sets no limit, or does not tell, or gives no answer for a while, holds nothing up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf, nan
from typing import Final

from outbox_relay.core.message import Message
from outbox_relay.core.share import ALL

#: Once it was full, it is so until less than this part of the share is used.
LOW: Final = 0.9
#: How many messages a full broker's queue may have ready: at the share, and where nothing is left.
FLOOR: Final = 1000
LEAST: Final = 10
#: Who waits so long for an answer, in seconds, waits for it no longer.
STALE: Final = 15.0
#: A broker that bounds nothing is asked again after so many seconds.
SELDOM: Final = 60.0
#: What a message takes there, reckoned high: beside its envelope so many bytes, and its own twice.
ENVELOPE: Final = 512
TIMES: Final = 2


@dataclass(frozen=True, slots=True)
class Used:
    """How much of its memory a broker uses, in bytes: 0 of 0 where nothing bounds it."""

    used: int = 0
    most: int = 0
    why: str = ""  # what keeps it from telling

    @property
    def part(self) -> float:
        """The part of it that is used; no number where nothing bounds it."""
        return self.used / self.most if self.most else nan

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return max(0, self.most - self.used)

    def beyond(self, share: float) -> bool:
        """Whether more than this share of it is used."""
        return self.used > share * self.most

    def __str__(self) -> str:
        return f"{self.used / (1 << 20):,.0f} of {self.most / (1 << 20):,.0f} MB are used"


def cost_of(messages: Iterable[Message]) -> int:
    """What they take there, in bytes."""
    return sum(ENVELOPE + TIMES * message.size for message in messages)


class Memory:
    """What is known of it. `now` is in monotonic seconds."""

    def __init__(self, share: float) -> None:
        self._share = share
        # How many bytes may pass until the next answer, and how many are left in all.
        self._room = self._left = inf
        self._passed = self._asked = 0
        self._told: int | None = None  # what had passed when that was asked which was answered last
        self._wanting: float | None = None  # since when an answer is missed
        self._again = -inf
        self._floor = FLOOR
        self.short = False  # queues are to be kept short, if answers come
        self._said = False  # and not only as it is reckoned
        self.used = Used()

    def question(self, now: float, *, waiting: bool) -> int | None:
        """What has passed, if an answer would say something new; None where it would not."""
        if now < self._again or (self._passed == self._told and not waiting):
            return None
        return self._passed

    def tell(self, used: Used, passed: int, now: float) -> None:
        """The broker has answered a question that was asked when so much had passed."""
        # What passed since the question before may still be on its way, and is counted again.
        unseen, self._asked = self._passed - self._asked, passed
        self.used, self._told, self._wanting = used, passed, None
        if not used.most:
            self._room = self._left = inf
            self.short, self._said, self._again = False, False, now + SELDOM
            return
        mark, rest = self._share * used.most, used.left
        below = mark - used.used - unseen
        self.short = self._said = used.beyond(LOW * self._share) if self.short else below <= 0
        self._floor = max(LEAST, min(FLOOR, int(FLOOR * rest / max(1.0, used.most - mark))))
        self._room, self._left = rest / 2 - unseen if self.short else below, rest - unseen

    def full(self, now: float) -> bool:
        """Whether queues are kept short."""
        return self.short and not self._is_stale(now)

    def ready(self, now: float) -> int:
        """How many messages each queue may have ready."""
        return self._floor if self.full(now) else ALL

    def shut(self, now: float) -> bool:
        """Whether it takes no message until the next answer."""
        return self._room <= 0 and self.full(now)

    def takes(self, message: Message, now: float) -> bool:
        """Whether it takes this one: where it said it was full, none larger than what is left."""
        if self.full(now):
            return self._room > 0 and (not self._said or cost_of([message]) <= self._left)
        return True

    def took(self, message: Message) -> None:
        """One has passed."""
        self._pass(cost_of([message]))

    def take_all(self, messages: Iterable[Message], now: float) -> bool:
        """Whether there is room for all of these, whatever their queues; then they have passed."""
        if self._room == inf:
            self._passed += 1
            return True
        if self._is_stale(now):
            return True
        if self.short or (cost := cost_of(messages)) > self._room:
            self.short = True
            return False
        self._pass(cost)
        return True

    def _pass(self, cost: int) -> None:
        self._passed += cost
        self._room -= cost
        self._left -= cost
        self.short = self.short or self._room <= 0

    def _is_stale(self, now: float) -> bool:
        """Whether an answer has been missed for too long."""
        if self._wanting is None:
            self._wanting = now
        return now - self._wanting > STALE
