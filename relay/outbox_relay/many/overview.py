"""The state of many outboxes at one moment, those first that need somebody."""

from collections.abc import Sequence
from dataclasses import dataclass

from outbox_relay.errors import RelayError
from outbox_relay.many.databases import ask_each
from outbox_relay.many.outbox import Outbox, natural
from outbox_relay.operator.status import Status, read


@dataclass(frozen=True, slots=True)
class Seen:
    """An outbox: its state, or why that cannot be known."""

    name: str
    status: Status | None
    trouble: str = ""

    def as_json(self) -> dict[str, object]:
        """For programs."""
        known = self.status.as_json() if self.status else {"error": self.trouble}
        return {"outbox": self.name, **known}


def look(outboxes: Sequence[Outbox], role: str) -> list[Seen]:
    """All of them. First those that cannot be asked, then those furthest behind."""
    answers = ask_each(outboxes, read, role)
    seen = [
        Seen(name, None, str(answer)) if isinstance(answer, RelayError) else Seen(name, answer)
        for name, answer in answers.items()
    ]
    return sorted(seen, key=_urgency)


def _urgency(seen: Seen) -> tuple[object, ...]:
    if seen.status is None:
        return (0, natural(seen.name))
    stats = seen.status.stats
    age = stats.oldest_pending_age if stats.pending else 0.0
    return (1, -age, -stats.dead, -stats.pending, natural(seen.name))
