"""A relay that signals itself at a named point: `python -m tests.faults.crash POINT:N:SIGKILL run`.

At the N-th time that it passes the point; SIGSTOP pauses where SIGKILL ends. The product holds no
crash points: its methods are wrapped by name before it starts, here and nowhere else. A name that
is no longer there fails the launch, and with it the test.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from outbox_relay.cli.main import main


@dataclass(frozen=True, slots=True)
class Point:
    """Where: before or after a method, on the N-th call for which `when` holds."""

    module: str
    method: str
    when: Callable[[tuple[Any, ...], Any], bool]  # arguments (without self), result
    before: bool = False


POINTS: Final = {
    # The claim is committed, and nothing of it published.
    "claimed": Point(
        "outbox_relay.core.decide", "Core.turned", lambda given, _: bool(given[1].rows)
    ),
    # Confirms are known, and not yet written down.
    "confirmed": Point(
        "outbox_relay.core.decide", "Core.confirmed", lambda given, _: bool(given[0])
    ),
    # They are written down, and nothing else has happened since.
    "marked": Point(
        "outbox_relay.core.decide", "Core.turned", lambda given, _: bool(given[0].done)
    ),
    # A refusal is known, and not yet written down.
    "refused": Point("outbox_relay.postgres.store", "Store.park", lambda *_: True, before=True),
}


def arm(point: Point, occasions: int, sent: signal.Signals) -> None:
    """Wrap the method."""
    owner_name, name = point.method.split(".")
    owner = getattr(import_module(point.module), owner_name)
    original = getattr(owner, name)
    left = occasions

    def wrapped(self: Any, *given: Any, **named: Any) -> Any:
        nonlocal left
        result = None if point.before else original(self, *given, **named)
        if point.when(given, result):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), sent)
        return original(self, *given, **named) if point.before else result

    setattr(owner, name, wrapped)


if __name__ == "__main__":
    where, occasion, name = sys.argv.pop(1).split(":")
    arm(POINTS[where], int(occasion), signal.Signals[name])
    sys.exit(main())
