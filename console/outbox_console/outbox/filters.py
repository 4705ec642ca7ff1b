"""What people search for, as it stands in an address: read, written, and turned into conditions.

Conditions are added only for what is asked, so that each search is planned for itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from outbox_console.errors import Problem
from outbox_console.outbox.states import State

#: By id: the message id, or the number of a row. Looked up first: a view finds one id at once.
_ID: Final = """id = ANY (ARRAY(
    SELECT m.id FROM {outbox}.message m WHERE m.message_id = %(id)s
    UNION ALL SELECT %(row)s::bigint)) AND (message_id = %(id)s OR id = %(row)s)"""
#: Chosen one by one.
_ROWS: Final = "id = ANY (%(rows)s::bigint[])"
_CONDITIONS: Final = {
    "task": "task = %(task)s",
    "queue": "routing_key = %(queue)s",
    "since": "created_at >= %(since)s",
    "until": "created_at < %(until)s",
    "text": "(args ILIKE %(text)s OR kwargs ILIKE %(text)s)",
    "reason": "last_error ILIKE %(reason)s",
}
#: The fields that people fill in, and that stand in an address.
FIELDS: Final = ("id", *_CONDITIONS)


@dataclass(frozen=True, slots=True)
class Filter:
    """A search; what is empty is not asked for. `rows` were chosen one by one."""

    id: str = ""
    task: str = ""
    queue: str = ""
    since: str = ""
    until: str = ""
    text: str = ""
    reason: str = ""
    rows: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self == Filter()

    def query(self, **more: str) -> str:
        """The part of an address after the question mark."""
        return urlencode({k: v for k, v in {**more, **self.texts()}.items() if v})

    def texts(self) -> dict[str, str]:
        """What people filled in, by field."""
        return {name: getattr(self, name) for name in FIELDS}

    def conditions(self, state: State, *, payload: bool) -> str:
        """SQL that begins with WHERE, with placeholders for `parameters`."""
        asked = [_ID] * bool(self.id) + [_ROWS] * bool(self.rows)
        for name, condition in _CONDITIONS.items():
            if not getattr(self, name):
                continue
            if name == "text" and not payload:
                raise Problem(403, "Arguments are not yours to see", "Search without them.")
            if name == "reason" and not state.has_reason:
                raise Problem(400, f"Nothing {state.name} has a reason", "Search without it.")
            asked.append(condition)
        return "WHERE " + " AND ".join(asked or ["true"])

    def parameters(self) -> dict[str, object]:
        """The values of the placeholders."""
        number = self.id if self.id.isascii() and self.id.isdigit() and len(self.id) < 19 else None
        return {
            "id": self.id,
            "row": int(number) if number else None,
            "rows": list(self.rows),
            "task": self.task,
            "queue": self.queue,
            "since": time("since", self.since),
            "until": time("until", self.until),
            "text": _contains(self.text),
            "reason": _contains(self.reason),
        }


def parse(values: Mapping[str, str]) -> Filter:
    """The search of an address or a form; raises Problem where no search can be meant."""
    texts: dict[str, Any] = {name: values.get(name, "").strip()[:500] for name in FIELDS}
    found = Filter(**texts)
    if "\0" in "".join(found.texts().values()):
        raise Problem(400, "No text holds a NUL", "Search for something else.")
    found.parameters()
    return found


def time(name: str, text: str) -> datetime | None:
    """The time that people gave, UTC where they say no zone; None for none. Raises Problem."""
    if not text:
        return None
    try:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Problem(400, f"`{name}` is no time", "Give one such as 2026-11-28T13:00Z.") from None


def _contains(text: str) -> str:
    escaped = text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
    return f"%{escaped}%"
