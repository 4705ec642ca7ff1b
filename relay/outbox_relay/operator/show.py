"""Everything about one message, and the view it is in."""

from dataclasses import dataclass
from typing import Any

from outbox_relay.operator import queries
from outbox_relay.operator.queries import SHOW
from outbox_relay.operator.session import APPLICATION_NAME, Session, Time
from outbox_relay.postgres.database import connect
from outbox_relay.settings import Settings


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


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker has told of a message."""

    outcome: str
    error: str | None
    run: int
    worker: str | None
    received_at: Time | None
    finished_at: Time | None
    noted_at: Time


def receipt_of(settings: Settings, message_id: str) -> Receipt | None:
    """The worker's receipt, where there is one and this login may read it."""
    url = settings.inbox_url.read() or settings.database_url.read()
    connection = connect(url, APPLICATION_NAME, settings.statement_timeout)
    with Session(connection, settings.schema) as inbox:
        if not inbox.value(queries.MAY_READ_RECEIPTS):
            return None
        found = inbox.fetch(Receipt, queries.RECEIPT_OF, message_id=message_id)
    return found[0] if found else None


def find(session: Session, id_: str, *, body: bool) -> list[Whole]:
    """Every row under a message id or a row's number, oldest first; with its body if asked for."""
    row = int(id_) if id_.isascii() and id_.isdigit() and len(id_) < 19 else None
    return session.fetch(Whole, SHOW, message_id=id_, row=row, body=body)
