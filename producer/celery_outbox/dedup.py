"""Deduplication: a message is dropped while another with its `dedup_key` is pending.

Whoever sent it then holds the id of the one that is pending. Which one that is, the database says,
in the sender's transaction: at once, or, where the code that sends cannot wait for an answer
(asyncio), when the message's turn to be inserted has come.
"""

from collections.abc import Sequence
from typing import Any

from celery_outbox.message import Message


class Dedup:
    """The `dedup_key` of one send, and the id of the message that stands in for it, if any."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.first: str | None = None
        self._result: Any = None

    def dropped(self, first: str) -> None:
        """Take note that the message with the id `first` is pending, and this one not stored."""
        self.first = first
        if self._result is not None:
            self._result.id = first

    def returned(self, result: Any) -> Any:
        """Return the result that Celery made, with the id of the message that is stored."""
        self._result = result
        if self.first is not None:
            result.id = self.first
        return result


def claims(messages: Sequence[Message]) -> tuple[list[str], list[str]]:
    """Return the dedup keys among `messages`, each once, and the ids of the first with each.

    Sorted, as any locks that several take: of two who share keys one waits, and none deadlocks.
    """
    firsts: dict[str, str] = {}
    for message in messages:
        if message.dedup_key is not None:
            firsts.setdefault(message.dedup_key, message.message_id)
    keys = sorted(firsts)
    return keys, [firsts[key] for key in keys]


def unclaimed(
    messages: Sequence[Message], keys: Sequence[str], pending: Sequence[str | None]
) -> list[Message]:
    """Return the messages to insert, and tell all others which one is pending instead.

    `pending` is what the database answered to each of `keys`. Of several here with the same key the
    first counts.
    """
    standing_in = {key: first for key, first in zip(keys, pending, strict=True) if first}
    stored = []
    for message in messages:
        key = message.dedup_key
        if key is None or (first := standing_in.get(key)) is None:
            stored.append(message)
            if key is not None:
                standing_in[key] = message.message_id
        elif message.dedup is not None:
            message.dedup.dropped(first)
    return stored
