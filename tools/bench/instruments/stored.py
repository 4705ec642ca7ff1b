"""What the outbox has: messages as the relay sees them, for limits, and which were settled when."""

from time import monotonic, sleep
from typing import Final

from bench.lab import Lab, Unbelievable
from outbox_relay.core.message import Message

PATIENCE_SECONDS: Final = 60
POLL_SECONDS: Final = 0.02

ROWS: Final = """
SELECT id, slot, 0, 0, 0, message_id, exchange, routing_key,
       convert_to(headers::text, 'UTF8'), convert_to(properties::text, 'UTF8'), body,
       content_type, content_encoding, mandatory, declare::text, false, %s::float8, task
FROM outbox.message ORDER BY id LIMIT %s
"""
SETTLED: Final = "SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM outbox.receipt"
SETTLED_AT: Final = """
SELECT m.message_id, extract(epoch FROM r.sent_at)::float8
FROM outbox.receipt r CROSS JOIN unnest(r.ids) AS settled (id)
JOIN outbox.message m ON m.id = settled.id
"""


def messages(lab: Lab, count: int) -> list[Message]:
    """Return the first messages of the outbox."""
    rows = lab.admin.execute(ROWS, (monotonic(), count)).fetchall()
    return [Message(*row) for row in rows]


def settled(lab: Lab) -> int:
    """How many messages were settled."""
    return int(lab.value(SETTLED))


def settled_at(lab: Lab) -> dict[str, float]:
    """When each message was settled, by its id."""
    return dict(lab.admin.execute(SETTLED_AT).fetchall())


def await_settled(lab: Lab, expected: int) -> None:
    """Return once so many are."""
    deadline = monotonic() + PATIENCE_SECONDS
    while (found := settled(lab)) < expected:
        if monotonic() > deadline:
            raise Unbelievable(f"{expected} messages committed, {found} settled")
        sleep(POLL_SECONDS)
