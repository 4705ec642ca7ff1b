"""What a broker says of a message that is larger than it takes.

RabbitMQ tells the largest it takes (`max_message_size`, by default 16 MiB since 4.0) only by
refusing a larger one: it closes the channel which that one came on, and no other.
"""

import re
from typing import Final

#: Precondition failed.
CODE: Final = 406
_SENTENCE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


def limit_in(code: int, text: str) -> int | None:
    """Return the limit that a channel's closing names, if it was closed over a message's size."""
    if code != CODE or (found := _SENTENCE.search(text)) is None:
        return None
    return int(found[1])
