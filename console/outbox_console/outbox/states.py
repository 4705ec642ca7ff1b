"""The states a message is seen in: the view of each, its order, and what may be done there."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class State:
    """One view. `time` is the column that tells since when, or from when on."""

    name: str
    help: str
    empty: str
    time: str
    time_name: str
    order: str
    has_reason: bool
    actions: tuple[str, ...]


#: Oldest or soonest first where people look for what holds up the rest; else the newest first.
STATES: Final = (
    State(
        "pending",
        "To be published: due, held by a relay, in a lane, or waiting for another attempt",
        "Nothing waits. Whatever was committed has been published.",
        "available_at",
        "due",
        "id",
        True,
        ("reschedule", "cancel"),
    ),
    State(
        "scheduled",
        "Held until its time: eta, countdown",
        "Nothing is scheduled.",
        "available_at",
        "due",
        "available_at, id",
        True,
        ("reschedule", "cancel"),
    ),
    State(
        "dead",
        "Given up; the reason says why",
        "Nothing is dead. This is how it should be.",
        "available_at",
        "died",
        "id DESC",
        True,
        ("retry", "discard"),
    ),
    State(
        "sent",
        "Confirmed by the broker, and not yet forgotten by retention",
        "Nothing was sent yet, or retention has forgotten it (OUTBOX_RETENTION).",
        "sent_at",
        "sent",
        "id DESC",
        False,
        ("replay",),
    ),
    State(
        "missing",
        "Confirmed more than five minutes ago, and no worker has finished it",
        "Nothing is missing: workers have finished all that was looked at.",
        "sent_at",
        "sent",
        "sent_at",
        False,
        ("replay",),
    ),
    State(
        "expired",
        "Over before a worker could have it; no error",
        "Nothing has expired.",
        "expired_at",
        "expired",
        "id DESC",
        True,
        (),
    ),
)
BY_NAME: Final = {state.name: state for state in STATES}
