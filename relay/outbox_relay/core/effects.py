"""What became of messages after their confirm, as a relay shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from outbox_relay.core.place import Place


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look has found.

    `executions` are the seconds from a task's commit to its end, each of a task that ended since
    the look before; `missing` are counts by place. What was confirmed more than `unchecked` seconds
    ago has been looked at.
    """

    executions: list[float] = field(default_factory=list)
    missing: Mapping[Place, int] = field(default_factory=dict)
    unchecked: float = 0.0
