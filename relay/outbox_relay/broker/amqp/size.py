"""What a broker says of a message larger than it takes, and what is said of that message then.

RabbitMQ tells the largest it takes (`max_message_size`, by default 16 MiB since 4.0) only by
refusing a larger one: it closes the channel which that one came on, and no other.
"""

import re
from typing import Final

from outbox_relay.core.message import Message, Reason, Refusal

#: Precondition failed.
CODE: Final = 406
_SENTENCE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


def limit_in(code: int, text: str) -> int | None:
    """Return the limit that a channel's closing names, if it was closed over a message's size."""
    if code != CODE or (found := _SENTENCE.search(text)) is None:
        return None
    return int(found[1])


def too_large(message: Message, limit: int) -> Refusal:
    """Return what becomes of a message that is larger than the broker takes."""
    detail = (
        f"its body of {len(message.body)} bytes is larger than the broker takes ({limit} bytes, "
        "its max_message_size): raise that, or send less and keep the rest elsewhere"
    )
    return Refusal(message, Reason.TOO_LARGE, detail)
