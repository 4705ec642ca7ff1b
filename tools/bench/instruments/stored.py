"""What the outbox has: messages as the relay sees them, for limits, and when they were settled."""

from time import monotonic
from typing import Final

from bench.lab import Lab
from outbox_relay.core.message import Message

ROWS: Final = """
SELECT id, slot, 0, 0, 0, message_id, exchange, routing_key,
       convert_to(headers::text, 'UTF8'), convert_to(properties::text, 'UTF8'), body,
       content_type, content_encoding, mandatory, declare::text, false, %s::float8, task
FROM outbox.message ORDER BY id LIMIT %s
"""
SETTLED_AT: Final = """
SELECT m.message_id, extract(epoch FROM r.sent_at)::float8
FROM outbox.receipt r CROSS JOIN unnest(r.ids) AS settled (id)
JOIN outbox.message m ON m.id = settled.id
"""


def messages(lab: Lab, count: int) -> list[Message]:
    """Return the first messages of the outbox."""
    rows = lab.admin.execute(ROWS, (monotonic(), count)).fetchall()
    return [Message(*row) for row in rows]


def settled_at(lab: Lab) -> dict[str, float]:
    """When each message was settled, by its id."""
    return dict(lab.admin.execute(SETTLED_AT).fetchall())
