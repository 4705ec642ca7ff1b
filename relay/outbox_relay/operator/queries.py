"""The statements behind what people see and do. `{outbox}` stands for the schema's quoted name.

Each list reads from one end of an index and stops at its limit, whatever the backlog. A filter by
task reads on until it has found enough.
"""

from typing import Final

#: Some escapes are legal in json and impossible in text: not shown, as in the views (4_views.sql).
_READABLE: Final = (
    r"m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'"
)
_MESSAGE: Final = f"""
       m.id, m.message_id, m.task, m.exchange, m.routing_key,
       CASE WHEN {_READABLE} THEN left(m.headers ->> 'argsrepr', 200) END AS args,
       CASE WHEN {_READABLE} THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs, m.created_at
"""
_OF_TASK: Final = "(%(task)s::text IS NULL OR m.task = %(task)s)"

_UNSENT: Final = """
SELECT id, message_id, task, exchange, routing_key, args, kwargs, created_at, available_at,
       attempts, last_error, NULL::timestamptz AS sent_at, """
_WAITING: Final = _UNSENT + "NULL::timestamptz AS expired_at FROM {outbox}."
_CHOSEN: Final = " WHERE %(task)s::text IS NULL OR task = %(task)s"

#: Oldest first: what holds up the rest, if anything does, is at the top.
PENDING: Final = _WAITING + "pending" + _CHOSEN + " ORDER BY id LIMIT %(limit)s"

#: Soonest first.
SCHEDULED: Final = _WAITING + "scheduled" + _CHOSEN + " ORDER BY available_at LIMIT %(limit)s"

#: Newest first: during an incident, the ones that are being added.
DEAD: Final = _WAITING + "dead" + _CHOSEN + " ORDER BY id DESC LIMIT %(limit)s"

#: Newest first, as those that were sent.
EXPIRED: Final = (
    _UNSENT + "expired_at FROM {outbox}.expired" + _CHOSEN + " ORDER BY id DESC LIMIT %(limit)s"
)

#: Last sent first, by the receipts: an old message that was sent again just now is at the top.
SENT: Final = (
    "SELECT"
    + _MESSAGE
    + """, NULL::timestamptz AS available_at, NULL::smallint AS attempts,
       NULL::text AS last_error, r.sent_at, NULL::timestamptz AS expired_at
  FROM {outbox}.receipt r
 CROSS JOIN LATERAL (SELECT unnest(r.ids) AS id ORDER BY 1 DESC) done
 CROSS JOIN LATERAL (SELECT * FROM {outbox}.message
                      WHERE id = done.id AND slot = r.slot OFFSET 0) m
 WHERE r.sent_at > {outbox}.by_index('-infinity'::timestamptz) AND """
    + _OF_TASK
    + """
   AND NOT EXISTS (SELECT FROM {outbox}.ready w WHERE w.id = m.id AND w.slot = m.slot OFFSET 0)
   AND NOT EXISTS (SELECT FROM {outbox}.parked w WHERE w.id = m.id AND w.slot = m.slot OFFSET 0)
   AND NOT EXISTS (SELECT FROM {outbox}.lane w WHERE w.id = m.id AND w.slot = m.slot OFFSET 0)
   AND NOT EXISTS (SELECT FROM {outbox}.expiry w WHERE w.id = m.id AND w.slot = m.slot OFFSET 0)
 ORDER BY r.sent_at DESC LIMIT %(limit)s"""
)

#: Everything about the messages with an id; `body` only when it is asked for. OFFSET 0: as plain
#: joins, three tables would be read from end to end for one message.
SHOW: Final = (
    "SELECT"
    + _MESSAGE
    + """, m.slot, CASE WHEN r.id IS NOT NULL OR l.id IS NOT NULL THEN 'pending'
            WHEN e.id IS NOT NULL THEN 'expired'
            WHEN p.id IS NULL AND t.sent_at IS NULL AND m.created_at >= (
                SELECT coalesce(max(f.at), '-infinity') FROM {outbox}.progress f
                 WHERE f.name = 'receipts_forgotten') THEN 'pending'
            WHEN p.id IS NULL THEN 'sent'
            WHEN p.state = 'retry' OR p.state = 'scheduled' AND p.available_at <= now()
            THEN 'pending' ELSE p.state END AS state,
       coalesce(p.available_at, m.available_at) AS available_at, m.expires_at,
       coalesce(r.attempts, p.attempts, e.attempts) AS attempts,
       coalesce(r.suspicion, p.suspicion) AS suspicion,
       coalesce(r.last_error, p.last_error, e.last_error) AS last_error,
       CASE WHEN r.lease_until > now() THEN r.lease_until END AS claimed_until,
       t.sent_at, e.expired_at,
       m.ordering_key, m.dedup_key,
       m.mandatory, m.content_type, m.content_encoding, octet_length(m.body) AS body_bytes,
       m.properties, m.headers, m.declare,
       CASE WHEN %(body)s THEN m.body END AS body
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
 WHERE m.id = ANY (ARRAY(
    SELECT x.id FROM {outbox}.message x WHERE x.message_id = %(message_id)s
    UNION ALL SELECT %(row)s::bigint))
   AND (m.message_id = %(message_id)s OR m.id = %(row)s)
 ORDER BY m.id, m.created_at"""
)

#: The message ids behind each id given: either it is one, or it is a row's number, which several
#: messages may have.
RESOLVE: Final = """
SELECT given.id AS given, coalesce(
    (SELECT ARRAY[m.message_id::text] FROM {outbox}.message m
      WHERE m.message_id = given.id LIMIT 1),
    ARRAY(SELECT DISTINCT m.message_id::text FROM {outbox}.message m
           WHERE m.id = CASE WHEN given.id ~ '^[0-9]{{1,18}}$' THEN given.id::bigint END
           ORDER BY 1)) AS message_ids
FROM unnest(%(ids)s::text[]) AS given (id)
"""

#: The rows of messages, with the slots that tell ids apart which were given twice.
ROWS_OF: Final = """
SELECT m.id, m.slot, m.message_id FROM {outbox}.message m
 WHERE m.message_id = ANY (%(ids)s::text[]) ORDER BY m.id
"""

#: A page of the dead, above the last one seen.
DEAD_PAGE: Final = (
    """
SELECT p.id, p.slot, m.message_id
  FROM {outbox}.parked p JOIN {outbox}.message m ON m.id = p.id AND m.slot = p.slot
 WHERE p.state = 'dead' AND p.id > %(above)s AND p.id <= %(newest)s AND """
    + _OF_TASK
    + " ORDER BY p.id LIMIT 1000"
)
NEWEST_DEAD: Final = "SELECT max(id) FROM {outbox}.parked WHERE state = 'dead'"

#: The change and its record in outbox.action, in one transaction; what was changed.
ACTED: Final = """
SELECT id, slot FROM {outbox}.acted(%(action)s, %(rows)s::bigint[], %(slots)s::smallint[], %(who)s,
                                    %(why)s, %(at)s::timestamptz)
"""

NOW: Final = "SELECT clock_timestamp()"

#: Whoever else replays what is missing waits until this transaction ends.
REPLAYS_ALONE: Final = """
SELECT pg_advisory_xact_lock(
    hashtextextended('replay_missing', '{outbox}.ready'::regclass::oid::bigint))
"""

#: How many were confirmed between two times.
CONFIRMED: Final = """
SELECT coalesce(sum(cardinality(ids)), 0)::bigint FROM {outbox}.receipt
WHERE sent_at BETWEEN %(since)s AND %(until)s
"""
#: Where the next portion of a replay ends, so that no transaction is long.
PORTION: Final = """
SELECT max(sent_at) FROM (
    SELECT sent_at FROM {outbox}.receipt
    WHERE sent_at BETWEEN %(since)s AND %(until)s ORDER BY sent_at LIMIT 20) portion
"""
#: What was confirmed between two times.
CONFIRMED_ROWS: Final = """
SELECT m.id, m.slot, m.message_id
  FROM (SELECT DISTINCT unnest(r.ids) AS id, r.slot FROM {outbox}.receipt r
         WHERE r.sent_at BETWEEN %(since)s AND %(until)s) c
  JOIN {outbox}.message m ON m.id = c.id AND m.slot = c.slot
 WHERE %(task)s::text IS NULL OR m.task = %(task)s
"""

PURGE: Final = "SELECT {outbox}.purge(%(older_than)s * interval '1 second', true)"

#: Whether a database has receipts that this login may ask for.
HAS_RECEIPTS: Final = "SELECT to_regprocedure('inbox.unfinished(text[])') IS NOT NULL"
WATCHED: Final = "SELECT task, since FROM inbox.watched"
UNFINISHED: Final = "SELECT * FROM inbox.unfinished(%(message_ids)s::text[])"
#: The ids go from one server to the other as they are: to read ten thousand takes Python longer
#: than Postgres takes to look for them.
CONFIRMED_PORTION: Final = """
SELECT last, message_ids::text, coalesce(cardinality(message_ids), 0) AS messages
FROM {outbox}.confirmed_portion(%(after)s, %(until)s, %(task)s)
"""
MISSING: Final = """
SELECT * FROM {outbox}.missing_among(%(found)s::json, %(watched)s::json, %(until)s)
"""
#: Whether this login can read receipts here.
MAY_READ_RECEIPTS: Final = """
SELECT coalesce(has_table_privilege(to_regclass('inbox.receipt'), 'SELECT')
            AND has_schema_privilege(to_regnamespace('inbox'), 'USAGE'), false)
"""
#: Whether it can see when the effects of a message were committed; their results it never sees.
MAY_READ_PROCESSED: Final = """
SELECT coalesce(has_column_privilege(to_regclass('inbox.processed'), 'message_id', 'SELECT')
            AND has_column_privilege(to_regclass('inbox.processed'), 'processed_at', 'SELECT')
            AND has_schema_privilege(to_regnamespace('inbox'), 'USAGE'), false)
"""
PROCESSED_AT: Final = "SELECT processed_at FROM inbox.processed WHERE message_id = %(message_id)s"
#: Each confirm of a message, and what was done to it; newest actions, if it had that many.
CONFIRMS_OF: Final = """
SELECT sent_at, claimed_at FROM {outbox}.confirms_of(%(id)s, %(slot)s::smallint)
ORDER BY sent_at
"""
ACTIONS_ON: Final = """
SELECT at, who, action, why FROM {outbox}.action
WHERE ids @> ARRAY[%(id)s::bigint]
  AND (NOT EXISTS (SELECT FROM {outbox}.message m WHERE m.id = %(id)s AND m.slot <> %(slot)s)
    OR EXISTS (SELECT FROM unnest(ids, slots) AS done (id, slot)
                WHERE done.id = %(id)s AND done.slot = %(slot)s))
ORDER BY id DESC LIMIT 100
"""
RECEIPT_OF: Final = """
SELECT outcome, error, run, worker, received_at, finished_at, noted_at FROM inbox.receipt
WHERE message_id = %(message_id)s
"""
