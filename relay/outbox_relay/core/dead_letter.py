"""A message that a broker has given up, and what it says about why. Pure.

RabbitMQ says so in `x-death`; a worker that put a message aside itself says so in `x-put-aside`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: The suffix of the queues that `celery_inbox.reliable()` declares for dead letters.
DEAD: Final = ".dead"
#: The header of what a worker could not begin: `reason`, `queue` and `worker`.
PUT_ASIDE: Final = "x-put-aside"
#: What workers say of a task that they do not know.
UNREGISTERED: Final = "unregistered task"
#: RabbitMQ's reasons in plain words.
REASONS: Final = {
    "delivery_limit": "delivery limit",
    "rejected": "rejected",
    "expired": "expired",
    "maxlen": "overflow",
}
#: What is counted by reason; a header may hold anything.
KINDS: Final = (*REASONS.values(), UNREGISTERED, "not begun", "unknown")
#: The longest text that is taken from a header.
MAX_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One that lies in a queue of dead letters; `handle` is how its broker finds it there."""

    queue: str
    message_id: str | None
    kind: str
    reason: str
    handle: Any
    #: Put back a few times more, its broker would drop it.
    endangered: bool = False


def message_id_of(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> str | None:
    """The id that its row would have: Celery's task id, or the property."""
    found = headers.get("id") or properties.get("message_id")
    return found if isinstance(found, str) else None


def why(headers: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of reason, and the reason in words, with the queue that it died in."""
    if isinstance(aside := headers.get(PUT_ASIDE), Mapping):
        reason = _shown(aside.get("reason"))
        kind = UNREGISTERED if reason == UNREGISTERED else "not begun"
        return kind, (
            f"{reason}: worker {_shown(aside.get('worker'))} could not begin it,"
            f" queue {_shown(aside.get('queue'))!r}"
        )
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None
    if not isinstance(last, Mapping):
        return "unknown", "dead letter: the broker gives no reason"
    kind = REASONS.get(str(last.get("reason")), "unknown")
    queue, count = _shown(last.get("queue")), last.get("count", 1)
    words = f"{kind}: dead letter of queue {queue!r}, {_shown(count)} time(s)"
    first = headers.get("x-first-death-reason"), headers.get("x-first-death-queue")
    if first[1] is not None and first != (last.get("reason"), last.get("queue")):
        earlier = REASONS.get(str(first[0]), "unknown")
        words += f"; first {earlier} in queue {_shown(first[1])!r}"
    return kind, words


def _shown(value: object) -> str:
    text = str(value)[:MAX_SHOWN]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
