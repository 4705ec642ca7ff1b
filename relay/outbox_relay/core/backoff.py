"""How long to wait before the table is polled again, or a refused message is tried again. Pure."""

import random
from typing import Final

#: Pauses between two polls of an idle table, in seconds: short right after a message, longer after
#: a tenth of a second without one, twice as long after QUIET seconds.
BUSY_POLL: Final = 0.002
IDLE_POLL: Final = 0.025
QUIET_POLL: Final = 0.05
QUIET: Final = 2.0
#: How long there is nothing to do before a relay that will be woken lies down; how often it looks
#: nevertheless; and how often a quiet one looks while another will be woken. All in seconds.
LIE_DOWN_AFTER: Final = 0.01
LOOK_EVERY: Final = 2.0
REST_POLL: Final = 1.0
#: How long after the last message everything that only looks slows down, in seconds: what becomes
#: of messages often follows soon.
QUIET_AFTER: Final = 60.0
#: The longest pause between two attempts to publish a refused message, in seconds.
MAX_RETRY_DELAY: Final = 300.0
#: What waits for its route is woken by a probe that was confirmed. If nobody does so, it is tried
#: after so many seconds, or up to twice as many.
MIN_HELD: Final = 900.0
#: The same for what waits for a worker that knows its task: woken as soon as one is seen.
UNKNOWN_DELAY: Final = 300.0


def poll_interval(idle: float) -> float:
    """Seconds until the next poll, `idle` seconds after the last message."""
    return min(IDLE_POLL if idle < QUIET else QUIET_POLL, max(BUSY_POLL, idle / 4))


def broker_wait(until_turn: float, *, full: bool, answers: bool) -> float:
    """How long to wait for the broker: until the next turn, so many seconds away.

    Where that could do nothing, as all is `full`: until there are answers, if any are to come.
    """
    if full:
        return IDLE_POLL if answers else BUSY_POLL
    return max(0.0, until_turn)


def retry_delay(first: float, attempts: int) -> float:
    """Seconds until attempt number `attempts` + 1: doubling from `first`, plus up to a quarter."""
    pause = min(MAX_RETRY_DELAY, first * 2.0 ** min(attempts - 1, 30))
    return pause * random.uniform(1, 1.25)


def turn_delay(first: float) -> float:
    """Seconds until a message is tried that had to wait for others; spread out."""
    return first * random.uniform(1, 5)


def held_delay() -> float:
    """Seconds until a message that waits for its route is tried whatever is known of the route."""
    return random.uniform(MIN_HELD, 2 * MIN_HELD)


def unknown_delay() -> float:
    """How long a message waits for a worker that knows its task, unless one is seen earlier."""
    return UNKNOWN_DELAY * random.uniform(1, 1.25)
