"""The statements of the chores beside publishing: promote, forget, count, look after.

The rules of `statements.py` hold for them too.
"""

from dataclasses import fields
from typing import Final

from outbox_relay.core.backlog import Stats, Upkeep
from outbox_relay.postgres.statement import Statement, columns

#: Whose id another message has where it would go has to wait for that one: it would be lost there.
_FREE: Final = """NOT EXISTS (
            SELECT FROM {outbox}.ready r WHERE r.id = p.id AND r.slot <> p.slot OFFSET 0)
          AND (p.lane IS NULL OR NOT EXISTS (
            SELECT FROM {outbox}.lane l WHERE l.id = p.id AND l.slot <> p.slot OFFSET 0))"""

#: What has become due goes back to the work table; what was scheduled with an ordering key, to its
#: place in the lane. A message in retry has kept its lane: none of its key was published meanwhile.
PROMOTE: Final = Statement(
    "promote",
    f"""
WITH due AS (
    DELETE FROM {{outbox}}.parked
    WHERE id = ANY (ARRAY(
        SELECT id FROM {{outbox}}.parked p
        WHERE state <> 'dead' AND available_at <= now()
          AND {_FREE}
        ORDER BY available_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING id, slot, attempts, suspicion, last_error, lane, state
), made AS (
    INSERT INTO {{outbox}}.ready (id, slot, attempts, suspicion, last_error, lane)
    SELECT id, slot, attempts, suspicion, last_error, lane FROM due
    WHERE lane IS NULL OR state = 'retry'
    ON CONFLICT (id) DO NOTHING
), queued AS (
    INSERT INTO {{outbox}}.lane (id, slot, key)
    SELECT id, slot, lane FROM due WHERE lane IS NOT NULL AND state = 'scheduled'
    ON CONFLICT (id) DO NOTHING
)
SELECT count(*) FROM due
""",
)

#: The first of what is due, over which PROMOTE fails, is given up: a person has to look at it.
SET_APART: Final = Statement(
    "set_apart",
    f"""
UPDATE {{outbox}}.parked p SET state = 'dead', last_error = %(error)s
WHERE id = (
    SELECT id FROM {{outbox}}.parked p
    WHERE state <> 'dead' AND available_at <= now()
          AND {_FREE}
    ORDER BY available_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING (SELECT m.message_id FROM {{outbox}}.message m WHERE m.id = p.id AND m.slot = p.slot)
""",
)

#: Retention 0: what was confirmed is forgotten at once.
FORGET: Final = Statement(
    "forget", "SELECT {outbox}.forget(%(slots)s::smallint[], %(ids)s::bigint[])"
)

#: Messages without work or ending get their work back, a bounded portion at a time.
RESTORE_WORK: Final = Statement("restore_work", "SELECT {outbox}.restore_work()")

#: Retention otherwise: never waits for a lock, deletes nothing unsent.
PURGE: Final = Statement("purge", "SELECT {outbox}.purge(%(older_than)s * interval '1 second')")

#: Whether anything that is due, or was refused and waits for another attempt, is left.
LEFT: Final = Statement(
    "left",
    """
SELECT EXISTS (SELECT FROM {outbox}.ready)
    OR EXISTS (SELECT FROM {outbox}.lane)
    OR EXISTS (SELECT FROM {outbox}.parked WHERE state = 'retry')
    OR EXISTS (SELECT FROM {outbox}.parked WHERE state = 'scheduled' AND available_at <= now())
""",
)

#: Counts and lag for the metrics.
STATS: Final = Statement(
    "stats",
    "SELECT "
    + columns(
        [field.name for field in fields(Stats)],
        {
            "pending": "pending",
            "scheduled": "scheduled",
            "dead": "dead",
            "oldest_pending_age": "extract(epoch FROM oldest_pending_age)::float8",
        },
    )
    + " FROM {outbox}.stats",
)

#: Whether vacuum keeps up: sizes and dead rows of the work tables, and for how long a transaction
#: has kept it from cleaning. NaN where this login may not see the transactions of others.
UPKEEP: Final = Statement(
    "upkeep",
    "SELECT "
    + columns(
        [field.name for field in fields(Upkeep)],
        {
            "ready_bytes": "pg_relation_size('{outbox}.ready'::regclass)",
            "parked_bytes": "pg_relation_size('{outbox}.parked'::regclass)",
            "ready_dead_tuples": "pg_stat_get_dead_tuples('{outbox}.ready'::regclass)",
            "parked_dead_tuples": "pg_stat_get_dead_tuples('{outbox}.parked'::regclass)",
            "horizon_age": """CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN coalesce((
           SELECT max(extract(epoch FROM clock_timestamp() - since))
           FROM (SELECT xact_start AS since FROM pg_stat_activity
                 WHERE pid <> pg_backend_pid() AND datname = current_database()
                   AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
                   AND backend_type <> 'autovacuum worker'
                 UNION ALL
                 SELECT prepared FROM pg_prepared_xacts
                 WHERE database = current_database()) AS open), 0)::float8
       ELSE 'NaN' END""",
        },
    ),
)
