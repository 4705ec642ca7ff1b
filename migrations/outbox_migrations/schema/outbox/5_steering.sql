-- What people and programs do to messages by id: take back, try again, delete, send once more.
--
-- Each works in the caller's transaction and is safe beside running relays. Without statistics
-- the planner would read the whole backlog to find the one message it is about: hence the
-- settings.

-- The producer's own second thoughts, in its own transaction. Dead rows are discard()'s business.
CREATE FUNCTION outbox.cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w WHERE r.id = w.id AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id AND p.state <> 'dead'
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) > 0 FROM gone
$$;
COMMENT ON FUNCTION outbox.cancel IS
    'Takes back a message that is still pending, in your transaction. False: too late, or unknown.';

-- dead -> pending, with a fresh count of attempts; of a lane: to its place in it.
CREATE FUNCTION outbox.retry(message_id text) RETURNS bigint
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH revived AS (
        DELETE FROM parked p USING message m
        WHERE m.message_id = $1 AND p.id = m.id AND p.slot = m.slot AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM revived WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, lane FROM revived WHERE lane IS NOT NULL
    ) SELECT count(*) FROM revived
$$;
COMMENT ON FUNCTION outbox.retry IS 'dead -> pending. Returns how many.';

-- dead or pending -> gone. A message a relay holds at this moment may already be on the wire:
-- kept.
CREATE FUNCTION outbox.discard(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w WHERE r.id = w.id AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION outbox.discard IS 'dead or pending -> gone. Returns how many.';

-- sent -> pending again, with the ids they had.
CREATE FUNCTION outbox.replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = outbox, pg_temp AS $$
    WITH confirmed AS (
        SELECT DISTINCT unnest(r.ids) AS id FROM receipt r WHERE r.sent_at BETWEEN $1 AND $2
    ), sent AS (
        SELECT m.id, m.slot, m.ordering_key FROM confirmed c JOIN message m ON m.id = c.id
        WHERE ($3 IS NULL OR m.task = $3)
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM sent WHERE ordering_key IS NULL
        ON CONFLICT (id) DO NOTHING RETURNING 1
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, ordering_key FROM sent WHERE ordering_key IS NOT NULL
        ON CONFLICT (id) DO NOTHING RETURNING 1
    ) SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM queued)
$$;
COMMENT ON FUNCTION outbox.replay IS
    'sent -> pending again, for messages confirmed between the two times. Returns how many.';
