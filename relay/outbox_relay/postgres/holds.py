"""What is held on purpose, as the database has it; see schema/outbox/8_holds.sql."""

from typing import Final

from outbox_relay.postgres.statement import Statement

#: What is paused now, in the order in which it is looked at: mostly nothing.
HOLDS: Final = Statement(
    "holds",
    """
SELECT kind, pattern, extract(epoch FROM until - now())::double precision, who, reason
FROM {outbox}.hold WHERE until IS NULL OR until > now()
ORDER BY until DESC NULLS FIRST, target
""",
)
#: How many messages wait for each pause, and for what else holds them.
HELD: Final = Statement(
    "held",
    "SELECT target, messages FROM {outbox}.held_counts() ORDER BY messages DESC LIMIT 100",
)
