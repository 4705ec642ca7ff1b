"""How long to wait: for the next look at the table, for a refused message, for a server.

Pure arithmetic and policies; the waiting is done elsewhere.
"""

import random
from typing import Final

#: Looking at an idle table, in seconds: often shortly after a message, rarely after a tenth of a
#: second without one, half as often after QUIET seconds.
BUSY_POLL: Final = 0.002
IDLE_POLL: Final = 0.025
QUIET_POLL: Final = 0.05
QUIET: Final = 2.0
#: The longest pause between two attempts to publish a refused message, in seconds.
MAX_RETRY_DELAY: Final = 300.0


def poll_interval(idle: float) -> float:
    """Seconds to wait before looking again, `idle` seconds after the last message."""
    return min(IDLE_POLL if idle < QUIET else QUIET_POLL, max(BUSY_POLL, idle / 4))


def retry_delay(first: float, attempts: int) -> float:
    """Seconds until attempt number `attempts` + 1: doubling from `first`, plus up to a quarter."""
    pause = min(MAX_RETRY_DELAY, first * 2.0 ** min(attempts - 1, 30))
    return pause * random.uniform(1, 1.25)
