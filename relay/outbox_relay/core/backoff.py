"""How long to wait before the table is polled again, or a refused message is tried again. Pure."""

import random
from typing import Final

#: Pauses between two polls of an idle table, in seconds: short right after a message, longer after
#: a tenth of a second without one, twice as long after QUIET seconds.
BUSY_POLL: Final = 0.002
IDLE_POLL: Final = 0.025
QUIET_POLL: Final = 0.05
QUIET: Final = 2.0
#: The longest pause between two attempts to publish a refused message, in seconds.
MAX_RETRY_DELAY: Final = 300.0


def poll_interval(idle: float) -> float:
    """Seconds until the next poll, `idle` seconds after the last message."""
    return min(IDLE_POLL if idle < QUIET else QUIET_POLL, max(BUSY_POLL, idle / 4))


def retry_delay(first: float, attempts: int) -> float:
    """Seconds until attempt number `attempts` + 1: doubling from `first`, plus up to a quarter."""
    pause = min(MAX_RETRY_DELAY, first * 2.0 ** min(attempts - 1, 30))
    return pause * random.uniform(1, 1.25)
