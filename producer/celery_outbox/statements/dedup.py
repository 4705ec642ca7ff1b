"""Deduplication: a message is dropped while another with its `dedup_key` is pending.

Which one that is, the database says, in the sender's transaction. Pure.
"""

from collections.abc import Sequence

from celery_outbox.message import Message


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


def dropped(
    messages: Sequence[Message], keys: Sequence[str], pending: Sequence[str | None]
) -> dict[int, str]:
    """Return which messages are not to be stored: their positions, and who is pending instead.

    `pending` is what the database answered to each of `keys`: an id, or None. Of several messages
    here with the same key the first counts.
    """
    standing_in = {key: first for key, first in zip(keys, pending, strict=True) if first}
    found = {}
    for position, message in enumerate(messages):
        key = message.dedup_key
        if key is None:
            continue
        if (first := standing_in.get(key)) is None:
            standing_in[key] = message.message_id
        else:
            found[position] = first
    return found
