"""Notes what is sent outside of a transaction, and where.

Django's own tests put a transaction around each test. That one does not count: in production it is
not there.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from celery import Celery

from celery_outbox import settings
from celery_outbox.decision import Destination, Origin
from celery_outbox.dispatch import Decision
from celery_outbox.message import Alike, Parcel

#: Whose frames are not the code that sends.
BETWEEN: Final = frozenset(
    {"asyncio", "celery", "celery_outbox", "concurrent", "contextlib", "django", "functools"}
    | {"kombu", "threading", "vine"}
)


@dataclass(frozen=True, slots=True)
class Place:
    """A line that sends a task outside of a transaction; `within` is the task it runs in."""

    file: str
    line: int
    function: str
    task: str
    within: str | None

    def shown(self, times: int) -> str:
        """Return it as one line of text."""
        parts = [f"{_relative(self.file)}:{self.line} in {self.function}: {self.task}"]
        if self.within is not None:
            parts.append(f"in the task {self.within}")
        if times > 1:
            parts.append(f"{times} times")
        return ", ".join(parts)


class Outside:
    """What was sent outside of a transaction while this was listening."""

    def __init__(self) -> None:
        self._places: Counter[Place] = Counter()

    def note(self, app: Celery, decision: Decision, message: Parcel) -> None:
        """Hear of a message, before it goes where it was decided."""
        alone = decision.origin is Origin.USER and decision.destination is Destination.STORE
        if not alone or _in_transaction(app):
            return
        frame = _sender(sys._getframe(1))
        running = app.current_worker_task
        place = Place(
            frame.f_code.co_filename,
            frame.f_lineno,
            frame.f_code.co_name,
            message.task,
            running.name if running is not None else None,
        )
        self._places[place] += len(message.filled) if isinstance(message, Alike) else 1

    def __bool__(self) -> bool:
        return bool(self._places)

    def lines(self) -> list[str]:
        """Return a line of text for each place, in the order of the files."""
        ordered = sorted(self._places.items(), key=lambda each: (*astuple(each[0])[:4],))
        return [place.shown(times) for place, times in ordered]

    def packed(self) -> list[list[Any]]:
        """Return it as what can be sent to another process."""
        return [[*astuple(place), times] for place, times in self._places.items()]

    def add(self, packed: Iterable[list[Any]]) -> None:
        """Add what another process has packed."""
        for *place, times in packed:
            self._places[Place(*place)] += times


def _in_transaction(app: Celery) -> bool:
    """Tell whether Django's connection is in a transaction that no test has begun around itself."""
    alias = settings.django_alias(app)
    if alias is None:
        return False
    from django.db import connections  # type: ignore[import-untyped]  # Django ships no types

    connection = connections[alias]
    if connection.get_autocommit():
        return False
    blocks = getattr(connection, "atomic_blocks", [])
    return not blocks or not all(getattr(each, "_from_testcase", False) for each in blocks)


def _sender(innermost: FrameType) -> FrameType:
    """Return the frame of the code that sends, or the outermost one."""
    frame: FrameType = innermost
    while str(frame.f_globals.get("__name__")).partition(".")[0] in BETWEEN:
        if frame.f_back is None:
            break
        frame = frame.f_back
    return frame


def _relative(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
