"""How deep a queue is, and who empties it: that nobody does is the commonest trouble of all."""

from dataclasses import dataclass
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn

NAME: Final = "consumers"
REMEDY: Final = (
    "start a worker for it (celery worker -Q {queue}), or correct the queue's name: the task's "
    "queue= or route, or queue => of outbox.enqueue, whose default is outbox.default_queue()"
)


@dataclass(frozen=True, slots=True)
class Depth:
    """A queue: messages ready, and consumers; None where the broker cannot tell how many.

    Of one that is `silent`, whose process hangs, nothing is known but that it is there.
    """

    queue: str
    messages: int
    consumers: int | None
    silent: bool = False


def judge(depth: Depth, *, why: str = "", advice: str = "") -> Finding:
    """Messages that nobody takes are a problem; an empty queue without consumers is a warning.

    `why` and `advice` are added to what is said of a queue that nobody consumes.
    """
    text = f"queue {depth.queue!r}: {depth.messages:,} message(s)"
    if depth.consumers is None:
        return ok(NAME, f"{text}; Redis does not tell who takes them")
    if depth.consumers:
        return ok(NAME, f"{text}, {depth.consumers:,} consumer(s)")
    return (problem if depth.messages else warn)(
        NAME, f"{text}, and nobody consumes it{why}", REMEDY.format(queue=depth.queue) + advice
    )


def judge_missing(queue: str) -> Finding:
    """A queue that rows have the relay declare, so that no error ever tells of it."""
    return warn(
        NAME,
        f"queue {queue!r} does not exist, and nobody consumes it: the relay declares it with the "
        "next message",
        REMEDY.format(queue=queue),
    )
