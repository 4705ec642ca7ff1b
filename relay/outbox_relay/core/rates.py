"""No more messages a second than somebody allows. Pure.

The tokens are in the database, shared by all relays; here is what this one has of them. A message
that a limit is about waits in the database, and is claimed from there once there is a token for
it. One that comes while none wait takes a token that is left over.

Tokens are asked for while something waits for them, and where there are none, not before there is
one: a slow limit costs a statement for each token, and the relay may sleep meanwhile.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

from outbox_relay.core.holds import LOOK_AGAIN, RATE, Hold, first_of, key_of
from outbox_relay.core.message import Message, Reason, Refusal, Wait

#: Tokens are asked for that often at most, in seconds, and for so many seconds' worth at a time.
ASK_EVERY: Final = 0.1
WORTH: Final = 0.2
#: And that often at least: a bucket may have been made anew, and be full.
MAX_PAUSE: Final = 30.0
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
    tokens: int = 0
    again: float = float("-inf")  # when to ask for tokens
    waiting: bool = False  # there may be messages in the database


class Rates:
    """The limits in force, and tokens for some messages."""

    def __init__(self) -> None:
        self._limits: tuple[Hold, ...] = ()
        self._buckets: dict[str, _Bucket] = {}  # by the target of the limit
        self._find = lru_cache(4096)(lambda *of: first_of(self._limits, *of))
        self._entitled: set[int] = set()  # claimed with a token

    @property
    def waiting(self) -> bool:
        """Whether messages may wait for a token."""
        return any(bucket.waiting for bucket in self._buckets.values())

    def replace(self, limits: Sequence[Hold]) -> list[str]:
        """These are in force from now on; returns what messages wait for that do so in vain."""
        known = {limit.target: limit.per_second or 0.0 for limit in limits}
        ended = [RATE + target for target in self._buckets if target not in known]
        self._buckets = {
            target: self._buckets.get(target) or _Bucket(per_second)
            for target, per_second in known.items()
        }
        for target, per_second in known.items():
            if (bucket := self._buckets[target]).per_second != per_second:
                bucket.per_second, bucket.again = per_second, float("-inf")
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
                self._entitled.remove(message.id)
                if (limit := self._limit_of(message)) is not None:
                    self._buckets[limit.target].tokens += 1

    def _limit_of(self, message: Message) -> Hold | None:
        if not self._limits:
            return None
        return self._find(message.exchange, message.routing_key, message.declare, message.task)

    def _may_go(self, id_: int, bucket: _Bucket) -> bool:
        if id_ in self._entitled:
            self._entitled.remove(id_)
            return True
        if bucket.waiting or not bucket.tokens:
            bucket.waiting = True
            return False
        bucket.tokens -= 1
        return True

    def found(self, targets: Iterable[str]) -> None:
        """Messages wait for these, as the database has them."""
        for target in targets:
            self._buckets[target.removeprefix(RATE)].waiting = True

    def wanted(self, now: float) -> dict[str, int]:
        """How many tokens of which bucket to ask for now, if it is time."""
        wanted: dict[str, int] = {}
        for target, bucket in self._buckets.items():
            if bucket.waiting and now >= bucket.again:
                wish = max(1, ceil(bucket.per_second * WORTH)) - bucket.tokens
                if wish > 0:
                    wanted[target] = wish
                    bucket.again = now + ASK_EVERY
        return wanted

    def granted(self, grants: Iterable[Grant], now: float) -> None:
        """So many were given."""
        for grant in grants:
            if (bucket := self._buckets.get(grant.target)) is not None:
                bucket.tokens += grant.tokens
                bucket.again = now + min(MAX_PAUSE, max(ASK_EVERY, grant.seconds))

    def pause(self, now: float) -> float:
        """Seconds until tokens are to be asked for."""
        waiting = (bucket.again for bucket in self._buckets.values() if bucket.waiting)
        return min(waiting, default=float("inf")) - now

    def wishes(self) -> dict[str, int]:
        """How many to take of the messages that wait, by key: one for each token."""
        return {
            key_of(RATE + target): bucket.tokens
            for target, bucket in self._buckets.items()
            if bucket.waiting and bucket.tokens
        }

    def claimed(self, asked: Iterable[str], found: Iterable[tuple[int, str]]) -> None:
        """A claim asked for these keys, and found messages under those: the others are empty."""
        if len(self._entitled) > MAX_ENTITLED:
            self._entitled.clear()  # they wait once more
        counts = dict.fromkeys(asked, 0)
        for id_, key in found:
            if key.startswith(key_of(RATE)):
                self._entitled.add(id_)
                counts[key] += 1
        for key, count in counts.items():
            bucket = self._buckets.get(key.removeprefix(key_of(RATE)))
            if bucket is not None and key.startswith(key_of(RATE)):
                bucket.tokens = max(0, bucket.tokens - count)
                bucket.waiting = count > 0


def _refusal(message: Message, limit: Hold) -> Refusal:
    detail = f"{limit.target} may have {limit.per_second or 0:g} a second"[:200]
    wait = Wait(key_of(RATE + limit.target), LOOK_AGAIN * random.uniform(1, 2))
    return Refusal(message, Reason.RATED, detail, wait)
