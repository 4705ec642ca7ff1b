-- What people and programs do to messages by id: take back, try again, delete, send once more.
--
-- Each works in the caller's transaction and is safe beside running relays. Without statistics
-- the planner would read the whole backlog to find the one message it is about: hence the
-- settings.

-- Gives messages that have neither work nor an ending (see `workless`) their work back. Each call
-- looks at the newest `portion` of messages and at as many others, going on where the last call
-- ended, from the oldest to the newest and over again. Returns how many it found. Where very many
-- batches of receipts reach over those messages it passes them by: to look would take too long.
--
-- Ids can have been given twice: work and endings are of the message in their slot. A message whose
-- id another one has among the work gets a new one.
CREATE FUNCTION outbox.restore_work(portion integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    portion_limit constant bigint := greatest(portion, 1);
    forgotten timestamptz;
    above bigint;
    ids bigint[];
    slots smallint[];
    lowest bigint;
    highest bigint;
    restored bigint := 0;
BEGIN
    -- One at a time, and each statement sees what the one before has committed.
    IF current_setting('transaction_isolation') <> 'read committed'
            OR NOT pg_try_advisory_xact_lock(
                hashtextextended('outbox.restore_work', 'ready'::regclass::oid::bigint)) THEN
        RETURN 0;
    END IF;
    SELECT coalesce(max(at), '-infinity') INTO forgotten FROM progress
     WHERE name = 'receipts_forgotten';
    SELECT coalesce(max(id), 0) INTO above FROM progress WHERE name = 'work_checked';
    FOR part IN 1..2 LOOP
        IF part = 1 THEN
            SELECT array_agg(id), array_agg(slot) INTO ids, slots FROM (
                SELECT id, slot FROM message WHERE id > above
                ORDER BY id FETCH FIRST portion_limit ROWS WITH TIES) m;
            INSERT INTO progress AS p (name, id) VALUES ('work_checked', CASE
                WHEN cardinality(ids) >= portion_limit THEN ids[cardinality(ids)] ELSE 0 END)
            ON CONFLICT (name) DO UPDATE SET id = excluded.id WHERE p.id <> excluded.id;
        ELSE
            SELECT array_agg(id), array_agg(slot) INTO ids, slots FROM (
                SELECT id, slot FROM message ORDER BY id DESC LIMIT portion_limit) m;
        END IF;
        SELECT array_agg(i), array_agg(s), min(i), max(i) INTO ids, slots, lowest, highest
        FROM unnest(ids, slots) AS looked (i, s)
        WHERE NOT EXISTS (SELECT FROM ready r WHERE r.id = i AND r.slot = s)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = i AND p.slot = s)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = i AND l.slot = s)
          AND NOT EXISTS (SELECT FROM expiry e WHERE e.id = i AND e.slot = s);
        CONTINUE WHEN ids IS NULL OR 5000 < (SELECT count(*) FROM (
            SELECT FROM receipt r WHERE r.span && int8range(lowest, highest, '[]')
            LIMIT 5001) reaching);
        SELECT array_agg(i), array_agg(s) INTO ids, slots FROM unnest(ids, slots) AS looked (i, s)
        WHERE (i, s) NOT IN (SELECT unnest(r.ids), r.slot FROM receipt r
                              WHERE r.span && int8range(lowest, highest, '[]'));
        WITH workless AS MATERIALIZED (
            SELECT m.* FROM unnest(ids, slots) AS missing (i, s), LATERAL (
                SELECT id, slot, available_at, ordering_key FROM message
                WHERE id = i AND slot = s AND created_at >= forgotten OFFSET 0) m
        ), renumbered AS MATERIALIZED (
            SELECT * FROM renumber(ARRAY(SELECT id FROM workless), ARRAY(SELECT slot FROM workless))
            WHERE EXISTS (SELECT FROM workless)
        ), found AS (
            SELECT coalesce(n.number, w.id) AS id, w.slot, w.available_at, w.ordering_key
            FROM workless w LEFT JOIN renumbered n ON n.id = w.id AND n.slot = w.slot
        ), due AS (
            INSERT INTO ready (id, slot) SELECT id, slot FROM found
            WHERE ordering_key IS NULL AND coalesce(available_at <= now(), true)
            ON CONFLICT (id) DO NOTHING RETURNING 1
        ), queued AS (
            INSERT INTO lane (id, slot, key) SELECT id, slot, ordering_key FROM found
            WHERE ordering_key IS NOT NULL AND coalesce(available_at <= now(), true)
            ON CONFLICT (id) DO NOTHING RETURNING 1
        ), held AS (
            INSERT INTO parked (id, slot, state, available_at, lane)
            SELECT id, slot, 'scheduled', available_at, ordering_key FROM found
            WHERE available_at > now()
            ON CONFLICT (id) DO NOTHING RETURNING 1
        )
        SELECT restored + (SELECT count(*) FROM due) + (SELECT count(*) FROM queued)
            + (SELECT count(*) FROM held) INTO restored;
    END LOOP;
    RETURN restored;
END $$;
COMMENT ON FUNCTION outbox.restore_work IS
    'Gives messages without work or ending their work back: a portion a call. Returns how many.';

-- The producer's own second thoughts, in its own transaction. Dead rows are discard()'s business.
CREATE FUNCTION outbox.cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w
        WHERE r.id = w.id AND r.slot = w.slot AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w
        WHERE p.id = w.id AND p.slot = w.slot AND p.state <> 'dead'
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id AND l.slot = w.slot
        RETURNING l.id, l.slot
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
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT outbox.ring();
    WITH revived AS (
        DELETE FROM parked p USING message m
        WHERE m.message_id = $1 AND p.id = m.id AND p.slot = m.slot AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM revived), ARRAY(SELECT slot FROM revived))
        WHERE EXISTS (SELECT FROM revived r, twins_at_work(r.id, r.slot))
    ), placed AS MATERIALIZED (
        SELECT r.*, coalesce(n.number, r.id) AS number
        FROM revived r LEFT JOIN renumbered n ON n.id = r.id AND n.slot = r.slot
    ), made AS (
        INSERT INTO ready (id, slot) SELECT number, slot FROM placed WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT number, slot, lane FROM placed WHERE lane IS NOT NULL
    ) SELECT count(*) FROM placed
$$;
COMMENT ON FUNCTION outbox.retry IS 'dead -> pending. Returns how many.';

-- The same by id; without slots, of whatever is dead: no two rows that wait share an id. Not asked by
-- `retry`, which people call for thousands: a function in a function is planned at every call.
CREATE FUNCTION outbox.retry_rows(rows bigint[], slots smallint[] DEFAULT NULL)
RETURNS SETOF outbox.changed
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH revived AS (
        DELETE FROM parked p USING unnest($1, $2) AS wanted (id, slot)
        WHERE p.id = wanted.id AND p.slot = coalesce(wanted.slot, p.slot) AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM revived), ARRAY(SELECT slot FROM revived))
        WHERE EXISTS (SELECT FROM revived r, twins_at_work(r.id, r.slot))
    ), placed AS MATERIALIZED (
        SELECT r.*, coalesce(n.number, r.id) AS number
        FROM revived r LEFT JOIN renumbered n ON n.id = r.id AND n.slot = r.slot
    ), made AS (
        INSERT INTO ready (id, slot) SELECT number, slot FROM placed WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT number, slot, lane FROM placed WHERE lane IS NOT NULL
    ) SELECT id, slot, number FROM placed
$$;
COMMENT ON FUNCTION outbox.retry_rows IS 'Private: dead -> pending, by id. Returns which.';

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
        DELETE FROM ready r USING wanted w
        WHERE r.id = w.id AND r.slot = w.slot AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id AND p.slot = w.slot
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id AND l.slot = w.slot
        RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION outbox.discard IS 'dead or pending -> gone. Returns how many.';

-- Messages that have no work get it again, with the message ids they had. Retention forgets none
-- meanwhile, and what it is at is waited for: else work would be left of a message that is gone.
CREATE FUNCTION outbox.sent_again(ids bigint[], slots smallint[]) RETURNS SETOF outbox.changed
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    SELECT outbox.ring();
    SELECT pg_advisory_xact_lock_shared(
        hashtextextended('sent_again', 'ready'::regclass::oid::bigint));
    WITH sent AS MATERIALIZED (
        SELECT DISTINCT m.id, m.slot, m.ordering_key
        FROM unnest($1, $2) AS chosen (id, slot) JOIN message m USING (id, slot)
        WHERE NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id AND r.slot = m.slot)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id AND p.slot = m.slot)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id AND l.slot = m.slot)
          AND NOT EXISTS (SELECT FROM expiry e WHERE e.id = m.id AND e.slot = m.slot)
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM sent), ARRAY(SELECT slot FROM sent))
        WHERE EXISTS (SELECT FROM sent s, twins_at_work(s.id, s.slot))
           OR (SELECT count(*) > count(DISTINCT id) FROM sent)
    ), placed AS MATERIALIZED (
        SELECT s.*, coalesce(n.number, s.id) AS number
        FROM sent s LEFT JOIN renumbered n ON n.id = s.id AND n.slot = s.slot
    ), made AS (
        INSERT INTO ready (id, slot)
        SELECT number, slot FROM placed WHERE ordering_key IS NULL
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT number, slot, ordering_key FROM placed WHERE ordering_key IS NOT NULL
        ON CONFLICT (id) DO NOTHING RETURNING id
    )
    SELECT p.id, p.slot, p.number FROM placed p
    WHERE CASE WHEN p.number IN (SELECT id FROM made UNION ALL SELECT id FROM queued) THEN true END
$$;
COMMENT ON FUNCTION outbox.sent_again IS
    'Private: gives messages that have no work left their work again. Returns which.';

CREATE FUNCTION outbox.send_again(ids bigint[], slots smallint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    SELECT count(*) FROM sent_again($1, $2)
$$;
COMMENT ON FUNCTION outbox.send_again IS
    'Private: gives messages that have no work left their work again. Returns how many.';

-- sent -> pending again.
CREATE FUNCTION outbox.replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    WITH confirmed AS (
        SELECT DISTINCT unnest(r.ids) AS id, r.slot FROM receipt r
        WHERE r.sent_at BETWEEN $1 AND $2
    ), chosen AS (
        SELECT m.id, m.slot FROM confirmed c JOIN message m ON m.id = c.id AND m.slot = c.slot
        WHERE $3 IS NULL OR m.task = $3
    ) SELECT send_again(array_agg(id), array_agg(slot)) FROM chosen
$$;
COMMENT ON FUNCTION outbox.replay IS
    'sent -> pending again, for messages confirmed between the two times. Returns how many.';

CREATE FUNCTION outbox.replay_message(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT send_again(array_agg(m.id), array_agg(m.slot)) FROM message m
    WHERE m.message_id = $1
      AND (EXISTS (SELECT FROM confirms_of(m.id, m.slot))
        OR m.created_at < (SELECT max(p.at) FROM progress p WHERE p.name = 'receipts_forgotten'))
$$;
COMMENT ON FUNCTION outbox.replay_message IS
    'sent -> pending again, for one message. Returns how many.';
