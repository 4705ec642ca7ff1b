"""What is said of a message that is larger than its broker takes. Pure."""

from typing import NamedTuple

from outbox_relay.core.message import Message, Reason, Refusal


class Oversized(NamedTuple):
    """A message whose body was not even fetched: its size is beyond the broker's limit; bytes."""

    message: Message
    size: int
    limit: int


def too_large(message: Message, size: int, limit: int) -> Refusal:
    """Return what becomes of it: no further attempt could help."""
    detail = (
        f"its body of {size} bytes is larger than the broker takes ({limit} bytes, its "
        "max_message_size): raise that, or send less and keep the rest elsewhere"
    )
    return Refusal(message, Reason.TOO_LARGE, detail)
