"""What a shape came to, told so that two runs of it can be compared: ids become labels."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery.result import GroupResult

from tests.end_to_end.canvas.journal import Note

#: What stands for a value that never came.
PENDING: Final = "PENDING"
#: For results that are there already.
GET_SECONDS: Final = 20
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Refused:
    """What stands for the result of a canvas that raised as it was sent."""

    error: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that can be seen of a run afterwards."""

    #: What get() returns.
    value: Any
    #: The state of each result, those of groups as lists, with those before it.
    states: Any
    #: Each attempt of each task: what it got and gave, and its stamps.
    ran: tuple[str, ...]

    @property
    def labels(self) -> str:
        """Who ran, in the order of the alphabet."""
        return " ".join(each.partition("(")[0].partition("#")[0] for each in self.ran)


def outcome(result: Any, notes: Sequence[Note]) -> Outcome:
    """Tell what a shape came to that has come to rest."""
    if isinstance(result, Refused):
        return Outcome(result.error, None, _ran(notes, {}))
    names = {note.task_id: note.label for note in notes if note.task_id}
    return Outcome(_value(result, names), _states(result), _ran(notes, names))


def _ran(notes: Sequence[Note], names: Mapping[str, str]) -> tuple[str, ...]:
    lines = []
    for note in notes:
        attempt = f"#{note.attempt}" if note.attempt else ""
        stamps = f" {note.stamps}" if note.stamps else ""
        got = _named(note.got, names)
        lines.append(f"{note.label}{attempt}({got}) = {note.gave}{stamps}")
    return tuple(sorted(lines))


def _value(result: Any, names: Mapping[str, str]) -> Any:
    if result is None:
        return None
    if not result.ready():
        return PENDING
    return _named(result.get(timeout=GET_SECONDS, propagate=False), names)


def _named(value: Any, names: Mapping[str, str]) -> Any:
    """Return a value with labels for ids, and words for errors."""
    if isinstance(value, list | tuple):
        return [_named(each, names) for each in value]
    if isinstance(value, BaseException):
        value = repr(value)
    if isinstance(value, str):
        return _ID.sub(lambda id: f"<{names.get(id[0], '?')}>", value)
    return value


def _states(result: Any) -> Any:
    if result is None:
        return None
    if isinstance(result, GroupResult):
        own: Any = [_states(each) for each in result.results or ()]
    else:
        own = result.state
    parent = _states(result.parent)
    return own if parent is None else {"state": own, "after": parent}
