"""Holds messages for tasks that no live worker of their queue knows. Pure.

What cannot be known is published: a queue of which no live worker says anything, a route whose
queue is not told by the row, a message that is no task of Celery's.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Final

from outbox_relay.core.message import Message, Reason, Refusal
from outbox_relay.core.route import queues_of

#: The tasks that live workers know, by the queue that these consume.
Known = Mapping[str, frozenset[str]]
NOTHING: Final[Known] = {}
#: Where Celery has the task's name; nested objects may have it first, so that it is only a hint.
_NAMED: Final = re.compile(rb'"task"\s*:\s*"([^"\\]*)"')
#: The longest name that is repeated in a reason.
MAX_SHOWN: Final = 100


class Guard:
    """What is known, replaced as a whole by whoever watches the workers."""

    def __init__(self) -> None:
        self.known = NOTHING

    def sort(self, messages: list[Message]) -> tuple[list[Message], list[Refusal]]:
        """Those that a live worker may know, and the others, which wait."""
        known = self.known
        if not known:
            return messages, []
        allowed: list[Message] = []
        held: list[Refusal] = []
        for message in messages:
            if (refusal := _refusal(known, message)) is None:
                allowed.append(message)
            else:
                held.append(refusal)
        return allowed, held


def _refusal(known: Known, message: Message) -> Refusal | None:
    queues = queues_of(message.exchange, message.routing_key, message.declare)
    if message.expired or is_known(known, queues, _hinted(message)):
        return None
    task = _task(message)
    if task is None or is_known(known, queues, task):
        return None
    named = ", ".join(map(repr, queues))
    detail = f"no live worker of queue {named} knows {task[:MAX_SHOWN]!r}"
    return Refusal(message, Reason.UNKNOWN_TASK, detail)


def is_known(known: Known, queues: Iterable[str], task: str | None) -> bool:
    """Whether a live worker of one of the queues knows the task, or none says anything."""
    said = [known[queue] for queue in queues if queue in known]
    return not said or any(task in tasks for tasks in said)


def _hinted(message: Message) -> str | None:
    found = _NAMED.search(message.headers)
    return found[1].decode(errors="replace") if found else None


def _task(message: Message) -> str | None:
    """The name in the headers, or None where they name none."""
    try:
        name = json.loads(message.headers).get("task")
    except ValueError:
        return None
    return name if isinstance(name, str) else None
