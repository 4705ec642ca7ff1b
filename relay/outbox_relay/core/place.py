"""Where a message most likely is that was confirmed and has no receipt. Pure.

What a worker has said of it comes first, then what the broker says of its queues. Told apart is
what is certain, what is only likely, and what cannot be known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final

#: A worker tells every minute of what it holds: after twice that it is not heard of any more.
SILENT_AFTER: Final = 150.0

#: What a worker could not run, in words.
NOT_RUN: Final = {
    "unregistered": "does not know the task",
    "undecodable": "could not decode it",
}


class Place(StrEnum):
    """Where it is."""

    QUEUE = "queue"
    UNACKNOWLEDGED = "unacknowledged"
    WORKER = "worker"
    DEAD_LETTERS = "dead letters"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker has said of a message, and how many seconds ago."""

    outcome: str
    worker: str
    error: str | None
    ago: float

    @property
    def who(self) -> str:
        """The worker that said it."""
        return self.worker or "a worker"


@dataclass(frozen=True, slots=True)
class Ready:
    """How many messages of a queue wait for a worker, and how many workers consume it, if known."""

    messages: int
    consumers: int | None


@dataclass(frozen=True, slots=True)
class Lying:
    """Where the broker has a message, found there by its id: in which queue, if it is in one."""

    place: Place
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most messages that a search reads, and for how long, in seconds."""

    messages: int = 1_000_000
    seconds: float = inf


@dataclass(frozen=True, slots=True)
class Search:
    """What came of a search by id; `complete` if what was not found is not there.

    So many messages were read.
    """

    found: Mapping[str, Lying]
    complete: bool
    read: int = 0


@dataclass(frozen=True, slots=True)
class Broker:
    """What the broker says: its queues, and where messages lie if it can be searched by id.

    Or why it says nothing.
    """

    queues: Mapping[str, Ready]
    silence: str = ""
    search: Search | None = None
    #: Queues that exist and give no answer.
    silent: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The place, whether that is certain, and how it is known."""

    place: Place
    certain: bool
    reason: str

    @property
    def is_kept(self) -> bool:
        """Whether it is certain that somebody has the message: it is not lost."""
        return self.certain and self.place is not Place.GONE


def judge(
    message_id: str,
    queues: Sequence[str],
    told: Told | None,
    broker: Broker,
    missing: int,
    dead: str,
) -> Whereabouts:
    """Where a message is: sent to these queues, as `missing` others that are not found, too.

    `dead` is the suffix of a queue of dead letters.
    """
    if told is not None and is_held(told):
        return Whereabouts(Place.WORKER, True, f"{told.who} said so {told.ago:.0f} s ago")
    if broker.search is not None and message_id in broker.search.found:
        return _where_found(broker.search.found[message_id])
    if told is not None:
        known = _by_worker(queues, told, broker, dead)
        if known is not None:
            return known
    if broker.search is not None and broker.search.complete:
        return _nowhere(queues, broker)
    return _by_broker(queues, broker, missing, dead)


def is_held(told: Told | None) -> bool:
    """Whether a worker has it now, by its own word."""
    return told is not None and told.outcome == "held" and told.ago < SILENT_AFTER


def _where_found(lying: Lying) -> Whereabouts:
    if lying.place is Place.UNACKNOWLEDGED:
        why = (
            "a worker took it and has not acknowledged it: if that worker is gone, others get it "
            "after the visibility timeout"
        )
    else:
        why = f"it lies in {lying.queue!r}"
    return Whereabouts(lying.place, True, why)


def _nowhere(queues: Sequence[str], broker: Broker) -> Whereabouts:
    """What a whole search has not found."""
    why = "no queue of the broker has it, and no worker has it unacknowledged"
    if not queues:
        return Whereabouts(Place.UNKNOWN, False, "which queues its exchange leads to is not known")
    if all(broker.queues[name].consumers == 0 for name in queues if name in broker.queues):
        return Whereabouts(Place.GONE, True, f"{why}; nobody takes messages from it")
    return Whereabouts(
        Place.GONE, False, f"{why}; one that acknowledges early may run it, and not have said so"
    )


def _by_worker(queues: Sequence[str], told: Told, broker: Broker, dead: str) -> Whereabouts | None:
    """What a worker knows, if that is still of use."""
    who = told.who
    if told.outcome in NOT_RUN:
        what = f"{who} {NOT_RUN[told.outcome]}"
        if letters := _letters(queues, broker, dead):
            return Whereabouts(Place.DEAD_LETTERS, False, f"{what}; {letters}")
        certain = not (broker.silence or broker.silent.intersection(q + dead for q in queues))
        return Whereabouts(Place.GONE, certain, f"{what}, and threw it away")
    if told.outcome == "lost":
        why = f"its process at {who} died ({told.error or 'unknown'}): it may have done its work"
        return Whereabouts(Place.GONE, True, why)
    if told.outcome == "held" and broker.silence:
        why = f"{who} held it, and has not said so for {told.ago:.0f} s"
        return Whereabouts(Place.UNKNOWN, False, why)
    return None


def _by_broker(queues: Sequence[str], broker: Broker, missing: int, dead: str) -> Whereabouts:
    if broker.silence:
        return Whereabouts(Place.UNKNOWN, False, broker.silence)
    if not queues:
        return Whereabouts(
            Place.UNKNOWN, False, "which queues its exchange leads to is known to the broker alone"
        )
    names = ", ".join(map(repr, queues))
    if broker.silent.intersection([*queues, *(queue + dead for queue in queues)]):
        return Whereabouts(Place.UNKNOWN, False, f"{names}, or its dead letters, gives no answer")
    found = [broker.queues[name] for name in queues if name in broker.queues]
    ready = sum(each.messages for each in found)
    if ready >= missing:
        return Whereabouts(Place.QUEUE, False, f"{ready:,} message(s) wait in {names}")
    if ready:
        why = f"{ready:,} of {missing:,} such messages can be those that wait in {names}"
        return Whereabouts(Place.UNKNOWN, False, why)
    if letters := _letters(queues, broker, dead):
        return Whereabouts(Place.DEAD_LETTERS, False, letters)
    if not found:
        why = f"the broker shows no queue {names}"
        return Whereabouts(Place.GONE, False, why)
    if all(each.consumers == 0 for each in found):
        why = f"{names} is empty, and without a consumer nothing of it can be unacknowledged"
        return Whereabouts(Place.GONE, True, why)
    return Whereabouts(
        Place.GONE, False, f"{names} is empty; whether a worker holds it the broker does not tell"
    )


def _letters(queues: Sequence[str], broker: Broker, dead: str) -> str:
    """What of its queues' dead letters speaks for it being among them."""
    if broker.search is not None and broker.search.complete:
        return ""
    for queue in queues:
        letters = broker.queues.get(queue + dead)
        if letters and letters.messages:
            return f"{letters.messages:,} message(s) lie in {queue + dead!r}"
    return ""
