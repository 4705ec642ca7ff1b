"""Everything about one message: where it is, what became of it, and its payload where that is seen.

What is payload is in a statement of its own, which runs for nobody who may not see it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from outbox_console.outbox import receipts
from outbox_console.outbox.receipts import Receipt
from outbox_console.postgres.database import Session

#: OFFSET 0: as plain joins, the tables would be read from end to end for one message.
MESSAGE: Final = """
SELECT m.id, m.slot, m.message_id, m.task, m.exchange, m.routing_key, m.created_at,
       m.available_at AS eta,
       m.expires_at, m.content_type, m.content_encoding, m.mandatory, m.ordering_key, m.dedup_key,
       CASE WHEN r.id IS NOT NULL OR l.id IS NOT NULL THEN 'pending'
            WHEN e.id IS NOT NULL THEN 'expired'
            WHEN p.id IS NULL AND t.sent_at IS NULL AND m.created_at >= (
                SELECT coalesce(max(f.at), '-infinity') FROM {outbox}.progress f
                 WHERE f.name = 'receipts_forgotten') THEN 'pending'
            WHEN p.id IS NULL THEN 'sent'
            WHEN p.state = 'retry' OR p.state = 'scheduled' AND p.available_at <= now()
            THEN 'pending' ELSE p.state END AS state,
       l.id IS NOT NULL AS in_lane, p.available_at AS parked_until,
       left(p.route, 1) = chr(30) IS TRUE AS held_back,
       coalesce(r.attempts, p.attempts, e.attempts, 0) AS attempts,
       coalesce(r.last_error, p.last_error, e.last_error) AS last_error,
       CASE WHEN r.lease_until > now() THEN r.lease_until END AS claimed_until,
       t.sent_at, e.expired_at
  FROM {outbox}.message m
  LEFT JOIN LATERAL (SELECT * FROM {outbox}.ready w
                      WHERE w.id = m.id AND w.slot = m.slot OFFSET 0) r ON true
  LEFT JOIN LATERAL (SELECT * FROM {outbox}.parked w
                      WHERE w.id = m.id AND w.slot = m.slot OFFSET 0) p ON true
  LEFT JOIN LATERAL (SELECT * FROM {outbox}.lane w
                      WHERE w.id = m.id AND w.slot = m.slot OFFSET 0) l ON true
  LEFT JOIN LATERAL (SELECT * FROM {outbox}.expiry w
                      WHERE w.id = m.id AND w.slot = m.slot OFFSET 0) e ON true
  LEFT JOIN LATERAL (SELECT max(c.sent_at) AS sent_at
                       FROM {outbox}.confirms_of(m.id, m.slot) c) t ON true
 WHERE m.id = %(id)s AND (%(slot)s::smallint IS NULL OR m.slot = %(slot)s)
 ORDER BY m.created_at DESC LIMIT 1
"""

#: Of a body only the beginning: nobody reads 16 MiB in a browser.
PAYLOAD: Final = """
SELECT headers::text, properties::text, declare::text, octet_length(body) AS size,
       substring(body FOR 65536) AS body
  FROM {outbox}.message WHERE id = %(id)s AND slot = %(slot)s
"""

#: A task's own retries have its id: they are other rows of the same task. By its number so may have
#: a message that is none of them: the slot tells those apart.
SIBLINGS: Final = """
SELECT m.id, m.slot, m.message_id = %(message_id)s AS same FROM {outbox}.message m
 WHERE (m.message_id = %(message_id)s OR m.id = %(id)s) AND (m.id, m.slot) <> (%(id)s, %(slot)s)
 ORDER BY m.id, m.slot LIMIT 20
"""
FAMILY: Final = """
SELECT relation, id, message_id, task, created_at FROM {outbox}.family(%(id)s, %(slot)s::smallint)
"""

#: All rows with a message id, or the row with that number.
FIND: Final = """
SELECT m.id FROM {outbox}.message m WHERE m.message_id = %(id)s
UNION SELECT m.id FROM {outbox}.message m WHERE m.id = %(row)s ORDER BY 1 LIMIT 50
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A message without its payload; `state` is the view it is in.

    What is `held_back` waits for a pause to end, a rate or a depth, as `last_error` says; a relay
    looks again at `parked_until` at the latest.
    """

    id: int
    slot: int
    message_id: str
    task: str
    exchange: str
    routing_key: str
    created_at: datetime
    eta: datetime | None
    expires_at: datetime | None
    content_type: str
    content_encoding: str
    mandatory: bool
    ordering_key: str | None
    dedup_key: str | None
    state: str
    in_lane: bool
    held_back: bool
    parked_until: datetime | None
    attempts: int
    last_error: str | None
    claimed_until: datetime | None
    sent_at: datetime | None
    expired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Payload:
    """What goes on the wire, as it is stored; of a large body the beginning."""

    headers: str
    properties: str
    declare: str
    size: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Row:
    """A row's id alone."""

    id: int


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another row: with the same message id, or else only with the same number."""

    id: int
    slot: int
    same: bool


@dataclass(frozen=True, slots=True)
class Relative:
    """A message of the same canvas: root, parent, child or relative."""

    relation: str
    id: int
    message_id: str
    task: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Found:
    """A message, its payload where that may be seen, and what belongs to it.

    `receipts_known` tells whether there being no receipt means anything.
    """

    message: Message
    payload: Payload | None
    siblings: list[Sibling]
    family: list[Relative]
    receipt: Receipt | None
    receipts_known: bool


async def find(session: Session, id_: int, slot: int | None, *, payload: bool) -> Found | None:
    """The message of a row; of several with that number, the newest. None where there is none."""
    messages = await session.fetch(Message, MESSAGE, id=id_, slot=slot)
    if not messages:
        return None
    (message,) = messages
    row = {"id": id_, "slot": message.slot}
    bodies: list[Any] = await session.fetch(Payload, PAYLOAD, **row) if payload else []
    siblings = await session.fetch(Sibling, SIBLINGS, **row, message_id=message.message_id)
    family = await session.fetch(Relative, FAMILY, **row)
    told = await receipts.of(session, [message.message_id])
    return Found(
        message,
        bodies[0] if bodies else None,
        siblings,
        family,
        (told or {}).get(message.message_id),
        told is not None,
    )


async def search(session: Session, text: str) -> list[int]:
    """The rows that an id may mean."""
    row = int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
    return [found.id for found in await session.fetch(Row, FIND, id=text, row=row)]
