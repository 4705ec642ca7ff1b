"""How the process of a relay ends, and how it spares itself garbage."""

import gc
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

#: The share of the grace period for what is in flight. The rest is for settling and giving back.
LANDING: Final = 0.8


def on_signals(stop: Callable[[], None], grace_period: float) -> None:
    """Call `stop` when the process is told to end, which it does within the grace period."""

    def handle(*_: object) -> None:
        stop()
        _end_within(grace_period)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def spare_the_collector() -> None:
    """Collect garbage less often: messages come and go by the thousand and make no cycles."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _end_within(seconds: float) -> None:
    """End the process then, whatever it waits for: the leases of its claims end by themselves."""

    def end() -> None:
        log.warning("grace_over", seconds=seconds)
        os._exit(1)

    guard = threading.Timer(seconds, end)
    guard.daemon = True
    guard.start()
