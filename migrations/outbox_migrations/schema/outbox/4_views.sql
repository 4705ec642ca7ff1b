-- The views people read. But for stats, they are disjoint and together every message kept.
--
-- Each is cheap on any backlog: it reads about as many rows as it shows. A person looks during an
-- incident, when a million rows wait and statistics are old, so no plan may depend on statistics:
-- every view begins with the narrow work rows, in an index's order, and looks each message up.
-- docs/decisions/0008-views-without-statistics.md has the reasons and what was measured.

-- A comparison with an expensive value is cheap only in an index, which computes it once; a plan
-- that reads a table from end to end computes it for every row, and is not chosen.
CREATE FUNCTION outbox.by_index(value anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE COST 2000 AS 'BEGIN RETURN value; END';
COMMENT ON FUNCTION outbox.by_index IS
    'Private: its argument, at a price that only an index look-up pays just once.';

-- Arguments as short text. Some escapes are legal in json and impossible in text: NUL, and half a
-- surrogate pair. One such row must not make a view unreadable, so its arguments are not shown.
CREATE FUNCTION outbox.short_repr(headers json, key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
        THEN left(headers ->> key, 200) END
$$;
COMMENT ON FUNCTION outbox.short_repr IS
    'Private: positional or named arguments as Celery renders them, at most 200 characters.';

-- How each view finds the message of a work row: an outer join can only begin with the work row;
-- but a condition on message_id, the one column shown as it is, makes it an inner join, which
-- begins with the message that has that id. All other columns are wrapped, so that a condition on
-- them does not. Compared with arrays of one, because neither a hash nor a merge join can do
-- that: each would read all.

-- The confirms of a message: what tells whether and when it was sent, wherever that is asked. Plain
-- enough that the planner puts it into the query that asks. The view `sent` has it written out: a
-- function would read receipts with the rights of whoever looks.
CREATE FUNCTION outbox.confirms_of(id bigint, slot smallint)
RETURNS TABLE (sent_at timestamptz, claimed_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT r.sent_at, r.claimed_at FROM outbox.receipt r
    WHERE r.span @> $1 AND $1 = ANY (r.ids) AND r.slot = $2
$$;
COMMENT ON FUNCTION outbox.confirms_of IS
    'Private: each confirm of this message, and of no other to which its id was given.';

-- A message that has neither work nor an ending: the triggers were off when it was inserted, or its
-- work was deleted by hand. It was never confirmed, so it is not sent; restore_work() gives it its
-- work back. To find all of them takes a look at all that is kept: these are of the newest hundred.
CREATE FUNCTION outbox.workless(OUT id bigint, OUT slot smallint) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1 SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$
    SELECT m.id, m.slot
    FROM (SELECT id, slot, created_at FROM message ORDER BY id DESC LIMIT 100) m
    LEFT JOIN LATERAL (
        SELECT true AS found FROM ready r WHERE r.id = m.id AND r.slot = m.slot
        UNION ALL SELECT true FROM parked p WHERE p.id = m.id AND p.slot = m.slot
        UNION ALL SELECT true FROM lane l WHERE l.id = m.id AND l.slot = m.slot
        UNION ALL SELECT true FROM expiry e WHERE e.id = m.id AND e.slot = m.slot
        UNION ALL SELECT true FROM confirms_of(m.id, m.slot)
        LIMIT 1) known ON true
    WHERE known.found IS NULL AND m.created_at >= (
        SELECT coalesce(max(p.at), '-infinity') FROM progress p
         WHERE p.name = 'receipts_forgotten')
$$;
COMMENT ON FUNCTION outbox.workless IS
    'Private: of the newest hundred messages, those that have neither work nor an ending.';

-- `kind` picks the branch's own condition; the others fold to false while planning. What is due
-- and not promoted yet has no index in the order of ids: `id + 0` keeps the planner from wading
-- through all that is not due, in search of one.
CREATE VIEW outbox.pending AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT 'ready' AS kind, NULL AS state, id, id AS key, slot,
               NULL::timestamptz AS available_at, attempts, last_error FROM outbox.ready
        UNION ALL
        SELECT 'lane', NULL, id, id, slot, NULL, 0::smallint, NULL FROM outbox.lane
        UNION ALL
        SELECT 'workless', NULL, id, id, slot, NULL, 0::smallint, NULL
            FROM (SELECT id, slot FROM outbox.workless() OFFSET 0) found
        UNION ALL
        SELECT 'retry', state, id, id, slot, available_at, attempts, last_error
            FROM outbox.parked
        UNION ALL
        SELECT 'due', state, id + 0, id, slot, available_at, attempts, last_error
            FROM outbox.parked
    ) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.key >= outbox.by_index(0)
      AND (w.kind = 'ready' OR w.kind = 'lane' OR w.kind = 'workless'
        OR w.kind = 'retry' AND w.state NOT IN ('scheduled', 'dead')
        OR w.kind = 'due' AND w.state NOT IN ('retry', 'dead') AND w.available_at <= now()
            AND w.available_at >= outbox.by_index('-infinity'::timestamptz)
            AND w.attempts >= outbox.by_index(0))
      AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.pending IS
    'To be published: due, claimed at this moment, waiting in its lane or for another attempt.';
COMMENT ON COLUMN outbox.pending.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.pending.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.pending.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.pending.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.pending.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.pending.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.pending.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.pending.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.pending.available_at IS
    'Since when, or from when on, it may be published.';
COMMENT ON COLUMN outbox.pending.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.pending.last_error IS 'Why the broker refused it last.';

CREATE VIEW outbox.scheduled AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM outbox.parked) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.state NOT IN ('retry', 'dead') AND w.available_at > outbox.by_index(now())
      AND w.key >= outbox.by_index(0) AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.scheduled IS 'Held until available_at (eta or countdown).';
COMMENT ON COLUMN outbox.scheduled.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.scheduled.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.scheduled.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.scheduled.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.scheduled.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.scheduled.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.scheduled.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.scheduled.created_at IS
    'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.scheduled.available_at IS 'Held until this time (eta or countdown).';
COMMENT ON COLUMN outbox.scheduled.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.scheduled.last_error IS 'Why the broker refused it last.';

CREATE VIEW outbox.dead AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM outbox.parked) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.state NOT IN ('scheduled', 'retry') AND w.key >= outbox.by_index(0)
      AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.dead IS
    'Given up; last_error says why. outbox.retry(message_id) tries again, outbox.discard deletes.';
COMMENT ON COLUMN outbox.dead.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.dead.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.dead.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.dead.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.dead.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.dead.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.dead.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.dead.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.dead.available_at IS 'When it was given up.';
COMMENT ON COLUMN outbox.dead.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.dead.last_error IS 'Why the broker refused it last.';

-- In the order of ids, found as the others are.
CREATE VIEW outbox.expired AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           coalesce(m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error, w.expired_at
    FROM (SELECT id AS key, * FROM outbox.expiry) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.key >= outbox.by_index(0) AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.expired IS
    'Over before a worker could have them; no error. Forgotten by retention, as what was sent.';
COMMENT ON COLUMN outbox.expired.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.expired.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.expired.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.expired.exchange IS
    'Exchange it was for; empty is the default exchange.';
COMMENT ON COLUMN outbox.expired.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.expired.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.expired.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.expired.created_at IS
    'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.expired.available_at IS 'From when on it might have been published.';
COMMENT ON COLUMN outbox.expired.attempts IS
    'How often the broker had refused it; outages do not count.';
COMMENT ON COLUMN outbox.expired.last_error IS
    'Whether a worker was told, so that its result is REVOKED.';
COMMENT ON COLUMN outbox.expired.expired_at IS 'When the relay noticed.';

-- A message is sent when it was confirmed and no work is left for it. Nothing above the highest
-- confirmed id was ever sent: a backlog, which lies above it, is not even looked at. Where retention
-- has forgotten the receipts of that time already, being without work is enough.
CREATE VIEW outbox.sent AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           done.sent_at
    FROM (SELECT id, id AS key, slot FROM outbox.message) w
    LEFT JOIN LATERAL (
        SELECT true AS waits FROM outbox.ready r WHERE r.id = w.id AND r.slot = w.slot
        UNION ALL
        SELECT true FROM outbox.parked p WHERE p.id = w.id AND p.slot = w.slot
        UNION ALL
        SELECT true FROM outbox.lane l WHERE l.id = w.id AND l.slot = w.slot
        UNION ALL
        SELECT true FROM outbox.expiry e WHERE e.id = w.id AND e.slot = w.slot
        LIMIT 1) work ON true
    LEFT JOIN LATERAL (
        SELECT max(r.sent_at) AS sent_at FROM outbox.receipt r
         WHERE r.span @> w.id AND w.id = ANY (r.ids) AND r.slot = w.slot) done ON true
    LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)]) AND w.slot = ANY (ARRAY[m.slot])
    WHERE w.key < outbox.by_index((
            SELECT coalesce(max(upper(r.span)), 9223372036854775807) FROM outbox.receipt r))
      AND NOT coalesce(work.waits, false) AND coalesce(m.id, 0) <> 0
      AND (done.sent_at IS NOT NULL OR coalesce(m.created_at, '-infinity') < (
            SELECT max(p.at) FROM outbox.progress p WHERE p.name = 'receipts_forgotten'));
COMMENT ON VIEW outbox.sent IS
    'Confirmed by the broker, and not yet forgotten by retention. The newest: ORDER BY id DESC.';
COMMENT ON COLUMN outbox.sent.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.sent.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.sent.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.sent.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.sent.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.sent.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.sent.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.sent.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.sent.sent_at IS
    'When the broker confirmed it; after a replay, the last time.';
