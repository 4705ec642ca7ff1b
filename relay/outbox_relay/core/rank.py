"""In which order messages that wait for one thing are let go: by their priority. Pure.

The broker says which way that goes: to RabbitMQ 9 is more urgent than 0, and to Celery's workers on
Redis 0 is more urgent than 9. A message without a priority has 0 on both.
"""

import json
from typing import Final

#: The highest priority there is.
MAX_PRIORITY: Final = 255


def rank_of(properties: bytes, *, lowest_first: bool) -> int:
    """Its rank: the lowest goes first. 0 where the priority is missing or makes no sense."""
    if b'"priority"' not in properties:
        return 0
    try:
        members = json.loads(properties)
    except ValueError:
        return 0
    priority = members.get("priority") if isinstance(members, dict) else None
    if type(priority) is not int:
        return 0
    bounded = max(0, min(MAX_PRIORITY, priority))
    return bounded if lowest_first else -bounded
