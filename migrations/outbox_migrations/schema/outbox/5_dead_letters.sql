-- Messages that the broker has given up come home: from its queues of dead letters to outbox.dead.
--
-- The relay asks about all it found in such a queue, and takes out of it what is known here. So the
-- answer is committed first. What is still work is left there for now: it may be settled by a late
-- confirm, and nobody would know of its dead letter then.

-- For each message id: 'home', it is dead now, or waits for another attempt; 'known', it was dead or
-- expired already; 'busy', ask again later; 'unknown', it is not of this outbox, or forgotten.
-- Several messages may have one id (a retry has its task's): the newest one is meant. `+ 0` keeps the
-- planner from looking for it among all messages, from the newest on.
CREATE FUNCTION outbox.bring_home(
    message_ids text[], states text[], errors text[], seconds float8 DEFAULT 0
) RETURNS TABLE (message_id text, verdict text)
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH found AS MATERIALIZED (
        SELECT asked.*, m.id, m.slot, m.ordering_key
        FROM unnest(message_ids, states, errors) AS asked (message_id, state, error)
        LEFT JOIN LATERAL (
            SELECT kept.id, kept.slot, kept.ordering_key FROM message kept
             WHERE kept.message_id = asked.message_id
             ORDER BY kept.id + 0 DESC LIMIT 1 FOR KEY SHARE) m ON true
    ), judged AS MATERIALIZED (
        SELECT f.*, CASE
            WHEN f.id IS NULL THEN 'unknown'
            WHEN EXISTS (SELECT FROM ready r WHERE r.id = f.id AND r.slot = f.slot)
              OR EXISTS (SELECT FROM lane l WHERE l.id = f.id AND l.slot = f.slot) THEN 'busy'
            WHEN EXISTS (SELECT FROM expiry e WHERE e.id = f.id AND e.slot = f.slot) THEN 'known'
            ELSE coalesce((SELECT CASE p.state WHEN 'dead' THEN 'known' ELSE 'busy' END
                             FROM parked p WHERE p.id = f.id AND p.slot = f.slot), 'home')
            END AS verdict
        FROM found f
    ), coming AS MATERIALIZED (
        SELECT DISTINCT ON (id, slot) * FROM judged WHERE verdict = 'home'
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM coming), ARRAY(SELECT slot FROM coming))
        WHERE EXISTS (SELECT FROM coming)
    ), placed AS MATERIALIZED (
        SELECT coalesce(n.number, c.id) AS id, c.slot, c.state, c.error, c.ordering_key
        FROM coming c LEFT JOIN renumbered n ON n.id = c.id AND n.slot = c.slot
    ), brought AS (
        INSERT INTO parked (id, slot, state, available_at, last_error, lane)
        SELECT id, slot, state, now() + seconds * interval '1 second', error, ordering_key
        FROM placed WHERE state = 'dead' OR ordering_key IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, ordering_key
        FROM placed WHERE state <> 'dead' AND ordering_key IS NOT NULL
    )
    SELECT judged.message_id, judged.verdict FROM judged
$$;
COMMENT ON FUNCTION outbox.bring_home IS
    'Private: what the broker gave up is dead here, with its reason. Returns a verdict for each.';
