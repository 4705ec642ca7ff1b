"""Where a message most likely is that was confirmed and has no receipt. Pure.

What a worker has said of it comes first, then what the broker says of its queues. Told apart is
what is certain, what is only likely, and what cannot be known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
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


@dataclass(frozen=True, slots=True)
class Ready:
    """How many messages of a queue wait for a worker, and how many workers consume it, if known."""

    messages: int
    consumers: int | None


@dataclass(frozen=True, slots=True)
class Broker:
    """What the broker says: its queues; or why it says nothing."""

    queues: Mapping[str, Ready]
    silence: str = ""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The place, whether that is certain, and how it is known."""

    place: Place
    certain: bool
    reason: str


def judge(
    queues: Sequence[str], told: Told | None, broker: Broker, missing: int, dead: str
) -> Whereabouts:
    """Where a message is: sent to these queues, as `missing` others that are not found, too.

    `dead` is the suffix of a queue of dead letters.
    """
    if told is not None:
        known = _by_worker(queues, told, broker, dead)
        if known is not None:
            return known
    return _by_broker(queues, broker, missing, dead)


def _by_worker(queues: Sequence[str], told: Told, broker: Broker, dead: str) -> Whereabouts | None:
    """What a worker knows, if that is still of use."""
    who = told.worker or "a worker"
    if told.outcome in NOT_RUN:
        what = f"{who} {NOT_RUN[told.outcome]}"
        if letters := _letters(queues, broker, dead):
            return Whereabouts(Place.DEAD_LETTERS, False, f"{what}; {letters}")
        certain = not broker.silence
        return Whereabouts(Place.GONE, certain, f"{what}, and threw it away")
    if told.outcome == "lost":
        why = f"its process at {who} died ({told.error or 'unknown'}): it may have done its work"
        return Whereabouts(Place.GONE, True, why)
    if told.outcome == "held" and told.ago < SILENT_AFTER:
        return Whereabouts(Place.WORKER, True, f"{who} said so {told.ago:.0f} s ago")
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
    for queue in queues:
        letters = broker.queues.get(queue + dead)
        if letters and letters.messages:
            return f"{letters.messages:,} message(s) lie in {queue + dead!r}"
    return ""
