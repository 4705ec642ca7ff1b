"""What a relay does with its store, step by step: claim, fetch, settle, park."""

from collections.abc import Callable
from typing import Any

from outbox_relay.core.claim import Claim, ClaimedRow, Fetched, Turn
from outbox_relay.core.message import Message, Parking
from outbox_relay.postgres.store import Store

TERM = 60.0
#: A claim that is over as soon as it is made.
OVER = 0.0

OpenStore = Callable[[], Store]


def lease(
    store: Store, limit: int = 100, *, floor: int = 0, number: int = 1, term: float = TERM
) -> list[ClaimedRow]:
    """Claim rows above a floor, oldest first."""
    return sorted(store.round_trip(None, Turn([], floor, limit, number, term)).rows)


def fetch(
    store: Store, rows: list[ClaimedRow], number: int = 1, max_body: int | None = None
) -> Fetched:
    """The messages of claimed rows."""
    claim = store.round_trip(Claim(rows, number, 0.0, max_body), None).fetched
    assert claim is not None
    return claim


def claim(store: Store, limit: int = 100, *, number: int = 1, term: float = TERM) -> list[Message]:
    """Claim rows and fetch their messages."""
    return fetch(store, lease(store, limit, number=number, term=term), number).messages


def settle(store: Store, messages: list[Message]) -> list[int]:
    """Mark messages as confirmed; the ids of those that were not settled."""
    return store.round_trip(None, Turn(messages, 0, 0, 99, TERM)).unsettled


def parked(message: Message, state: str = "retry", **changes: Any) -> Parking:
    """A decision to park a message, due at once."""
    decision: dict[str, Any] = {"attempts": 1, "suspicion": 0, "delay": 0.0, "error": "why"}
    return Parking(message, state, **{**decision, **changes})
