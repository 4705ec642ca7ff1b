"""No more messages a second than somebody allows. Pure.

The tokens are in the database, shared by all relays; here is what this one has of them. A message
that a limit is about waits in the database, and is claimed from there once there is a token for
it. One that comes while none wait takes a token that is left over.

Tokens are asked for while something waits for them, up to a fifth of a second ahead, and each is
used at its time. So a bucket that may hold only one never stands full, and the rate is what it
should be. Where there are none, they are not asked for before there will be one: a slow limit costs
a statement for each token, and the relay may sleep meanwhile.
"""

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, inf
from typing import Final, NamedTuple

from outbox_relay.core.holds import LOOK_AGAIN, RATE, Hold, first_of, key_of
from outbox_relay.core.message import Message, Reason, Refusal, Wait

#: Tokens are asked for that often at most, in seconds, and for so many seconds' worth at a time.
ASK_EVERY: Final = 0.1
WORTH: Final = 0.2
#: And that often at least: a bucket may have been made anew, and be full.
MAX_PAUSE: Final = 30.0
#: So many seconds before there is one more: less than the database gives them ahead.
EARLY: Final = 0.15
#: So late, in seconds, one is still used beside others; beyond, no more than may be sent at once.
LATE: Final = 0.2
#: The most that are remembered to have one: what is held by something else did not need it.
MAX_ENTITLED: Final = 10_000


class Grant(NamedTuple):
    """So many tokens were given for the target of a limit; in so many seconds there is one more."""

    target: str
    tokens: int
    seconds: float


@dataclass(slots=True)
class _Bucket:
    """What this relay has of one limit."""

    per_second: float
    burst: float
    tokens: list[float] = field(default_factory=list)  # when each may be used, the first first
    again: float = -inf  # when to ask for tokens
    waiting: bool = False  # there may be messages in the database

    def due(self, now: float) -> int:
        """How many may be used by now."""
        return bisect_right(self.tokens, now)

    def wish(self, now: float) -> int:
        """How many to ask for, none or less where there are enough: what is due goes any moment."""
        kept = len(self.tokens) - self.due(now) + bisect_left(self.tokens, now - LATE)
        return max(1, ceil(self.per_second * WORTH)) - kept

    def add(self, grant: Grant, now: float) -> None:
        """So many, at the rate; together where they are few against what may be sent at once."""
        following = now + grant.seconds
        grain = min(ASK_EVERY, (self.burst - 1) / self.per_second / 2)
        for before in range(grant.tokens, 0, -1):
            time = max(now, following - before / self.per_second)
            self.tokens.append(ceil(time / grain) * grain if grain and time > now else time)
        self.tokens.sort()

    def forget(self, now: float) -> None:
        """Give up what was not used in time: no more may be sent at once than the limit says."""
        late, most = bisect_left(self.tokens, now - LATE), int(self.burst)
        extra = late - most if self.waiting else max(late, self.due(now) - most)
        del self.tokens[: max(0, extra)]


class Rates:
    """The limits in force, and tokens for some messages."""

    def __init__(self) -> None:
        self._limits: tuple[Hold, ...] = ()
        self._buckets: dict[str, _Bucket] = {}  # by the target of the limit
        self._find = lru_cache(4096)(lambda *of: first_of(self._limits, *of))
        self._entitled: dict[int, float] = {}  # claimed with a token, which had that time
        self._now = -inf

    @property
    def waiting(self) -> bool:
        """Whether messages may wait for a token."""
        return any(bucket.waiting for bucket in self._buckets.values())

    def replace(self, limits: Sequence[Hold]) -> list[str]:
        """These are in force from now on; returns what messages wait for that do so in vain."""
        known = {limit.target: (limit.per_second or 0.0, limit.burst or 1.0) for limit in limits}
        ended = [RATE + target for target in self._buckets if target not in known]
        self._buckets = {
            target: self._buckets.get(target) or _Bucket(*limit) for target, limit in known.items()
        }
        for target, limit in known.items():
            if ((bucket := self._buckets[target]).per_second, bucket.burst) != limit:
                (bucket.per_second, bucket.burst), bucket.again = limit, -inf
        self._limits = tuple(limits)
        self._find.cache_clear()
        if not limits:
            self._entitled.clear()
        return ended

    def knows(self, target: str) -> bool:
        """Whether a limit is what messages wait for that wait for this."""
        return target.removeprefix(RATE) in self._buckets

    def sort(self, messages: list[Message]) -> tuple[list[Message], list[Refusal]]:
        """Those that may go, and the others, which wait for a token."""
        if not self._limits:
            return messages, []
        allowed: list[Message] = []
        held: list[Refusal] = []
        for message in messages:
            if (refusal := self.judge(message)) is None:
                allowed.append(message)
            else:
                held.append(refusal)
        return allowed, held

    def judge(self, message: Message) -> Refusal | None:
        """Nothing where the message has or gets a token, or needs none; else it waits for one."""
        limit = self._limit_of(message)
        if limit is None or self._may_go(message.id, self._buckets[limit.target]):
            return None
        return _refusal(message, limit)

    def give_back(self, messages: Iterable[Message]) -> None:
        """Something else holds these: the tokens they were claimed with are for others."""
        if not self._entitled:
            return
        for message in messages:
            if message.id in self._entitled:
                time = self._entitled.pop(message.id)
                if (limit := self._limit_of(message)) is not None:
                    insort(self._buckets[limit.target].tokens, time)

    def _limit_of(self, message: Message) -> Hold | None:
        if not self._limits:
            return None
        return self._find(message.exchange, message.routing_key, message.declare, message.task)

    def _may_go(self, id_: int, bucket: _Bucket) -> bool:
        if id_ in self._entitled:
            del self._entitled[id_]
            return True
        if bucket.waiting or not bucket.due(self._now):
            bucket.waiting = True
            return False
        del bucket.tokens[0]
        return True

    def found(self, targets: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        for target in targets:
            self._buckets[target.removeprefix(RATE)].waiting = True

    def wanted(self, now: float) -> dict[str, int]:
        """How many tokens of which bucket to ask for now, if it is time."""
        self._now = now
        wanted: dict[str, int] = {}
        for target, bucket in self._buckets.items():
            bucket.forget(now)
            if bucket.waiting and now >= bucket.again and (wish := bucket.wish(now)) > 0:
                wanted[target] = wish
                bucket.again = now + ASK_EVERY
        return wanted

    def granted(self, grants: Iterable[Grant], now: float) -> None:
        """So many were given."""
        self._now = now
        for grant in grants:
            if (bucket := self._buckets.get(grant.target)) is not None:
                bucket.add(grant, now)
                bucket.again = now + min(MAX_PAUSE, max(ASK_EVERY, grant.seconds - EARLY))

    def pause(self, now: float) -> float:
        """Seconds until tokens are to be asked for, or one that is here is to be used."""
        waiting = [bucket for bucket in self._buckets.values() if bucket.waiting]
        asked = min((bucket.again for bucket in waiting if bucket.wish(now) > 0), default=inf)
        used = min((bucket.tokens[0] for bucket in waiting if bucket.tokens), default=inf)
        return min(asked, used) - now

    def wishes(self, now: float) -> dict[str, int]:
        """How many to take of the messages that wait, by key: one for each token."""
        return {
            key_of(RATE + target): due
            for target, bucket in self._buckets.items()
            if bucket.waiting and (due := bucket.due(now))
        }

    def claimed(self, asked: Iterable[str], found: Iterable[tuple[int, str]]) -> None:
        """A claim asked for these keys, and found messages under those: the others are empty."""
        if len(self._entitled) > MAX_ENTITLED:
            self._entitled.clear()  # they wait once more
        there: dict[str, list[int]] = {key: [] for key in asked if key.startswith(key_of(RATE))}
        for id_, key in found:
            if key in there:
                there[key].append(id_)
        for key, ids in there.items():
            bucket = self._buckets.get(key.removeprefix(key_of(RATE)))
            self._entitled.update(dict.fromkeys(ids, self._now))
            if bucket is not None:
                self._entitled.update(zip(ids, bucket.tokens, strict=False))
                del bucket.tokens[: len(ids)]
                bucket.waiting = bool(ids)


def _refusal(message: Message, limit: Hold) -> Refusal:
    detail = f"{limit.target} may have {limit.per_second or 0:g} a second"[:200]
    wait = Wait(key_of(RATE + limit.target), LOOK_AGAIN * random.uniform(1, 2))
    return Refusal(message, Reason.RATED, detail, wait)
