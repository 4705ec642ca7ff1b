"""The statements about claimed work whose message is not to be seen.

Somebody has deleted the message, or has detached the table of its slot: then it is there, and is to
be sent once the table is attached again. The rules of `statements.py` hold for them too.
"""

from typing import Final

from outbox_relay.postgres.statement import Statement

#: Whether what is in the slot of `r` can be seen. A table that is being detached CONCURRENTLY
#: belongs to `message` no longer, though it is not let go yet.
_ATTACHED: Final = """EXISTS (
        SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = '{outbox}.message'::regclass AND NOT i.inhdetachpending
          AND c.relname = 'message_' || r.slot)"""

#: Delete work whose message somebody has deleted by hand: there is nothing to publish. Fenced too.
#: A sub-select, because NOT EXISTS may become a join that reads every message there is.
DROP_ORPHANS: Final = Statement(
    "drop_orphans",
    f"""
DELETE FROM {{outbox}}.ready r
WHERE id = ANY (ARRAY(
    SELECT id FROM {{outbox}}.ready
    WHERE id = ANY (%(ids)s::bigint[]) AND claim_id = ANY (%(claim_ids)s::bigint[])
    FOR UPDATE SKIP LOCKED))
  AND (SELECT m.id FROM {{outbox}}.message m WHERE m.id = r.id AND m.slot = r.slot) IS NULL
  AND {_ATTACHED}
""",
)

#: Work of a detached slot is looked at again after a while, and takes no room from other work till
#: then. Fenced too. Where another message with its id is parked, it stays where it is.
PARK_DETACHED: Final = Statement(
    "park_detached",
    f"""
WITH held AS MATERIALIZED (
    SELECT id, slot, attempts, suspicion, lane FROM {{outbox}}.ready r
    WHERE id = ANY (%(ids)s::bigint[]) AND claim_id = ANY (%(claim_ids)s::bigint[])
      AND NOT {_ATTACHED}
      AND NOT EXISTS (SELECT FROM {{outbox}}.parked p WHERE p.id = r.id OFFSET 0)
    FOR UPDATE OF r SKIP LOCKED
), moved AS (
    DELETE FROM {{outbox}}.ready WHERE id = ANY (ARRAY(SELECT id FROM held))
)
INSERT INTO {{outbox}}.parked
    (id, slot, state, available_at, attempts, suspicion, last_error, lane)
SELECT id, slot, 'retry', now() + %(delay)s * interval '1 second', attempts, suspicion,
       'not published: the table of its slot is detached', lane
FROM held ON CONFLICT (id) DO NOTHING
""",
)
