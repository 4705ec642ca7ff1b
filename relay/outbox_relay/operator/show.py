"""Everything about one message: the view it is in, and its life from its creation on."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from outbox_relay.operator import life, queries
from outbox_relay.operator.inbox import inbox_of
from outbox_relay.operator.life import Action, Confirm, Receipt, Step, Told
from outbox_relay.operator.queries import SHOW
from outbox_relay.operator.session import Session, Time
from outbox_relay.settings import Settings

#: A run's number counts its retries, and this many more each time the task replaced itself.
REPLACED = 1_000_000


@dataclass(frozen=True, slots=True)
class Whole:
    """A message with all that is known of it; `state` is the view it is in."""

    id: int
    slot: int
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


def told_of(session: Session, settings: Settings, message_id: str) -> Told:
    """What the inbox knows of a message id, as far as this login may read it."""
    with inbox_of(session, settings) as inbox:
        ahead = timedelta(0)
        if inbox is not session:
            ahead = inbox.value(queries.NOW) - session.value(queries.NOW)
        receipts: list[Receipt] = []
        if inbox.value(queries.MAY_READ_RECEIPTS):
            receipts = inbox.fetch(Receipt, queries.RECEIPT_OF, message_id=message_id)
        processed_at: Time | None = None
        if inbox.value(queries.MAY_READ_PROCESSED):
            processed_at = inbox.value(queries.PROCESSED_AT, message_id=message_id)
    return Told(receipts[0] if receipts else None, processed_at, ahead)


def life_of(session: Session, whole: Whole, told: Told) -> list[Step]:
    """All that is known to have happened to it, in the order of time."""
    confirms = session.fetch(Confirm, queries.CONFIRMS_OF, id=whole.id, slot=whole.slot)
    actions = session.fetch(Action, queries.ACTIONS_ON, id=whole.id, slot=whole.slot)
    due_at = None if whole.state == "dead" else whole.available_at
    steps = life.in_outbox(whole.created_at, due_at, confirms, actions)
    if whole.claimed_until is not None:
        steps.append(Step(whole.claimed_until, "its claim ends"))
    if whole.expired_at is not None:
        steps.append(Step(whole.expired_at, "expired"))
    if whole.state == "dead" and whole.available_at is not None:
        steps.append(Step(whole.available_at, f"given up: {whole.last_error}"))
    return life.in_order(steps + life.at_worker(told, _run(whole.headers)))


def _run(headers: Any) -> int:
    """Which run of its task the message asks for, as `run_number` of the schema has it."""
    found = headers if isinstance(headers, dict) else {}
    counts = (found.get("replaced_task_nesting"), found.get("retries"))
    nesting, retries = (n if isinstance(n, int) and 0 <= n < REPLACED else 0 for n in counts)
    return nesting * REPLACED + retries


def find(session: Session, id_: str, *, body: bool) -> list[Whole]:
    """Every row under a message id or a row's number, oldest first; with its body if asked for."""
    row = int(id_) if id_.isascii() and id_.isdigit() and len(id_) < 19 else None
    return session.fetch(Whole, SHOW, message_id=id_, row=row, body=body)
