-- How many there are, of everything, in one row that is cheap on any backlog.

-- At most so many of a table's rows, by an index: neither a drained backlog's dead rows nor a million
-- others may hide the few that are asked for.
CREATE FUNCTION outbox.count_few(source regclass, condition text, few bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    counted bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %s) found',
                   source, condition, few) INTO counted;
    RETURN counted;
END $$;
COMMENT ON FUNCTION outbox.count_few IS 'Private: counts rows, at most so many of them.';

-- Counts a table exactly while it is small, or has few such rows; else from a sample of its pages:
-- the same ones each time, so that a count that grows has grown.
CREATE FUNCTION outbox.rough_count(source regclass, condition text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    few     constant bigint := 1000;
    pages   bigint := pg_relation_size(source) / current_setting('block_size')::bigint;
    percent float8 := 100.0 * 1000 / greatest(pages, 1000);
    counted bigint;
BEGIN
    IF pages <= 1000 THEN
        EXECUTE format('SELECT count(*) FROM %s WHERE %s', source, condition) INTO counted;
        RETURN counted;
    END IF;
    counted := outbox.count_few(source, condition, few + 1);
    IF counted <= few THEN
        RETURN counted;
    END IF;
    EXECUTE format('SELECT count(*) FROM %s TABLESAMPLE SYSTEM (%s) REPEATABLE (0) WHERE %s',
                   source, percent, condition) INTO counted;
    RETURN greatest(round(counted * 100.0 / percent), few + 1);
END $$;
COMMENT ON FUNCTION outbox.rough_count IS
    'Private: counts few rows or a small table exactly, and many by a sample.';

CREATE VIEW outbox.stats AS
    SELECT outbox.rough_count('outbox.ready', 'true')
             + outbox.rough_count('outbox.lane', 'true')
             + outbox.rough_count('outbox.parked', $$state NOT IN ('scheduled', 'dead')$$)
             + outbox.rough_count('outbox.parked',
                   $$state NOT IN ('retry', 'dead') AND available_at <= now()$$)
             + (SELECT count(*) FROM outbox.workless())
               AS pending,
           outbox.rough_count('outbox.parked',
                   $$state NOT IN ('retry', 'dead') AND available_at > now()$$) AS scheduled,
           outbox.rough_count('outbox.parked', $$state NOT IN ('scheduled', 'retry')$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort. What is
           -- paused, or limited, somebody wants to wait, and what is behind it in its lane too.
           coalesce(clock_timestamp() - (
               SELECT min(coalesce(m.available_at, m.created_at)) FROM (
                   (SELECT id, slot FROM outbox.ready
                     WHERE id >= outbox.by_index(0) ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT l.id, l.slot
                      FROM (SELECT id, slot, key FROM outbox.lane
                             WHERE id >= outbox.by_index(0) ORDER BY id LIMIT 1000) l
                     WHERE NOT EXISTS (
                         SELECT FROM outbox.parked p
                         WHERE p.lane = l.key AND p.state = 'retry' AND left(p.route, 1) = chr(30)
                           AND left(p.route, 7) <> chr(30) || 'depth:' OFFSET 0)
                     ORDER BY l.id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM outbox.parked
                     WHERE CASE WHEN state = 'retry'
                                     AND (route IS NULL OR left(route, 1) <> chr(30)
                                          OR left(route, 7) = chr(30) || 'depth:') THEN 1 END = 1
                       AND id >= outbox.by_index(0) AND suspicion >= outbox.by_index(0)
                     ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM outbox.parked
                     WHERE state NOT IN ('retry', 'dead') AND available_at <= now()
                       AND available_at >= outbox.by_index('-infinity'::timestamptz)
                       AND id >= outbox.by_index(0) AND attempts >= outbox.by_index(0)
                     ORDER BY available_at LIMIT 1)) w
               JOIN outbox.message m
                 ON m.id = ANY (ARRAY[w.id]) AND m.slot = ANY (ARRAY[w.slot])),
               interval '0') AS oldest_pending_age,
           outbox.rough_count('outbox.expiry', 'true') AS expired;
COMMENT ON VIEW outbox.stats IS
    'One row, cheap on any backlog: counts are exact to 1,000 at least and sampled beyond.';
COMMENT ON COLUMN outbox.stats.pending IS
    'How many are to be published; exact to 1,000 at least, sampled beyond.';
COMMENT ON COLUMN outbox.stats.scheduled IS 'How many are held until their time.';
COMMENT ON COLUMN outbox.stats.dead IS 'How many were given up.';
COMMENT ON COLUMN outbox.stats.oldest_pending_age IS
    'For how long the oldest pending message has been due that no pause and no rate holds.';
COMMENT ON COLUMN outbox.stats.expired IS 'How many expired, of those that are still kept.';
