"""Everything about one message, and the view it is in."""

from dataclasses import dataclass
from typing import Any

from outbox_relay.operator.queries import SHOW
from outbox_relay.operator.session import Session, Time


@dataclass(frozen=True, slots=True)
class Whole:
    """A message with all that is known of it; `state` is the view it is in."""

    id: int
    message_id: str
    state: str
    task: str
    exchange: str
    routing_key: str
    args: str | None
    kwargs: str | None
    created_at: Time
    available_at: Time | None
    expires_at: Time | None
    sent_at: Time | None
    expired_at: Time | None
    claimed_until: Time | None
    attempts: int | None
    suspicion: int | None
    last_error: str | None
    ordering_key: str | None
    dedup_key: str | None
    mandatory: bool
    content_type: str
    content_encoding: str
    body_bytes: int
    properties: Any
    headers: Any
    declare: Any
    body: bytes | None


def find(session: Session, id_: str, *, body: bool) -> list[Whole]:
    """Every row under a message id or a row's number, oldest first; with its body if asked for."""
    row = int(id_) if id_.isascii() and id_.isdigit() and len(id_) < 19 else None
    return session.fetch(Whole, SHOW, message_id=id_, row=row, body=body)
