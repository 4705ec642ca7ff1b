"""Which attempt a call belongs to: an idempotent task that calls one is not a second delivery.

The inner body is a part of the outer attempt, on its transaction: `self.run()` has the message of
the attempt, whose row it would wait for, and what is called as a function has none of its own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: On a request: the attempt of its message that runs. Celery copies what is on it for each call.
_ATTEMPT = "_celery_inbox_attempt"


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """An attempt whose body runs: what its connection comes from, and its handle."""

    source: Any
    handle: Any


class _Attempts(threading.local):
    """Those of this thread, the outermost first: another thread has no business on a session."""

    def __init__(self) -> None:
        self.running: list[Attempt] = []


_attempts = _Attempts()


@contextmanager
def running(attempt: Attempt, request: Any) -> Iterator[None]:
    """Have calls inside be a part of this attempt, which is one of the message of `request`."""
    setattr(request, _ATTEMPT, attempt)
    _attempts.running.append(attempt)
    try:
        yield
    finally:
        _attempts.running.pop()
        setattr(request, _ATTEMPT, None)


def attempt_around(source: Any, request: Any) -> Attempt | None:
    """The attempt that a call is a part of: of its own message, or with its source of connections.

    Of what is delivered inside, eagerly say, none is.
    """
    own: Attempt | None = getattr(request, _ATTEMPT, None)
    for attempt in reversed(_attempts.running):
        if attempt is own:
            return attempt
        if request.called_directly and source == attempt.source:
            return attempt
    return None
