"""What is held back on purpose, and how it is let go. Pure.

A message that a hold is about is set aside in the database, under the hold's key, and no claim
meets it again. Once nothing is held under that key any more, such messages are claimed from there.
What is let go of one hold and falls under another is set aside again, under that
one's key.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from outbox_relay.core.message import Message, Reason, Refusal, Wait
from outbox_relay.core.route import queues_of
from outbox_relay.core.share import ALL

#: A key begins with this, which no route that is written down does.
MARK: Final = "\x1e"
#: What is held by the depth of its queue has a target of this kind: `depth:mail`.
DEPTH: Final = "depth:"
#: And what is held by its rate: `rate:queue:mail`.
RATE: Final = "rate:"
#: What is held without an end is looked at once more after so many seconds, or up to twice as many,
#: whatever becomes of its hold.
LOOK_AGAIN: Final = 86_400.0
#: The most bytes of a reason that are repeated in each row.
MAX_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Hold:
    """Messages whose queue, exchange or task a pattern fits are held, so many seconds more."""

    kind: str
    pattern: str
    seconds: float | None = None
    who: str = ""
    reason: str = ""
    per_second: float | None = None  # not held, but so many a second
    burst: float | None = None  # and so many at once after a while without any

    @property
    def target(self) -> str:
        """What it is about, as the database has it."""
        return self.kind if self.kind == "all" else f"{self.kind}:{self.pattern}"

    @property
    def why(self) -> str:
        """What the row of a held message says."""
        by = f" by {self.who}" if self.who else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.target} is paused{by}{reason}"[:MAX_SHOWN]

    @property
    def wait(self) -> Wait:
        """What its messages wait for."""
        seconds = LOOK_AGAIN * random.uniform(1, 2) if self.seconds is None else self.seconds
        return Wait(key_of(self.target), seconds)


def key_of(target: str) -> str:
    """Under which a held message waits."""
    return MARK + target


def target_of(key: str) -> str:
    """What holds those that wait under the key."""
    return key.removeprefix(MARK)


def is_key(written: str) -> bool:
    """Whether what a message waits for is a hold, and no route."""
    return written.startswith(MARK)


class Holds:
    """What is held now, and what is being let go."""

    def __init__(self) -> None:
        self._holds: tuple[Hold, ...] = ()
        self._find = lru_cache(4096)(lambda *of: first_of(self._holds, *of))
        self._let_go: dict[str, None] = {}  # keys

    @property
    def letting_go(self) -> bool:
        """Whether messages that are not held any more may wait in the database."""
        return bool(self._let_go)

    def replace(self, holds: Sequence[Hold]) -> None:
        """These are in force from now on, and no others; what others held is let go."""
        known = {key_of(hold.target) for hold in holds}
        ended = [key_of(hold.target) for hold in self._holds if key_of(hold.target) not in known]
        self._holds = tuple(holds)
        self._find.cache_clear()
        for key in known & self._let_go.keys():
            del self._let_go[key]
        self._let_go.update(dict.fromkeys(ended))

    def sort(self, messages: list[Message]) -> tuple[list[Message], list[Refusal]]:
        """Those that may go on, and the others, which are held."""
        if not self._holds:
            return messages, []
        allowed: list[Message] = []
        held: list[Refusal] = []
        for message in messages:
            hold = self._find(message.exchange, message.routing_key, message.declare, message.task)
            if hold is None:
                allowed.append(message)
            else:
                held.append(Refusal(message, Reason.PAUSED, hold.why, hold.wait))
        return allowed, held

    def found(self, keys: Iterable[str]) -> None:
        """Messages wait under these keys, as the database has them."""
        held = {key_of(hold.target) for hold in self._holds}
        self._let_go.update(dict.fromkeys(key for key in keys if key not in held))

    def keep(self, keys: Iterable[str]) -> list[str]:
        """Something else holds these: they are not let go after all; returns those that were."""
        kept = [key for key in keys if key in self._let_go]
        for key in kept:
            del self._let_go[key]
        return kept

    def wishes(self) -> dict[str, int]:
        """How many to take of the messages that are let go, by key."""
        return dict.fromkeys(self._let_go, ALL)

    def claimed(self, asked: Iterable[str], found: Iterable[str]) -> None:
        """A claim asked for these keys, and found messages under those: the others are empty."""
        there = set(found)
        for key in asked:
            if key not in there:
                self._let_go.pop(key, None)


def first_of(
    holds: Iterable[Hold], exchange: str, routing_key: str, declare: str, task: str
) -> Hold | None:
    """The first that is about a message with these."""
    for hold in holds:
        if hold.kind == "all":
            return hold
        names: Iterable[str] = (task,)
        if hold.kind == "queue":
            names = queues_of(exchange, routing_key, declare)
        elif hold.kind == "exchange":
            names = (exchange,)
        if any(fits(hold.pattern, name) for name in names):
            return hold
    return None


def fits(pattern: str, name: str) -> bool:
    """Whether the name fits: `*` stands for any characters, `?` for any one of them."""
    return _compiled(pattern).fullmatch(name) is not None


@lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(c) or re.escape(c) for c in pattern), re.DOTALL)
