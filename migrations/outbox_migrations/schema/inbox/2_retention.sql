-- Forgets old inbox rows, in portions that hold up nobody.
--
-- Twice the outbox's default retention: a message may be replayed on its last day there, and its
-- copy may then wait in a queue for days before it is recognised.

-- A duplicate of a row in deletion waits for this transaction: hence portions. Two purges at once
-- take different rows.
CREATE FUNCTION inbox.purge(older_than interval DEFAULT '14 days') RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    WITH old AS MATERIALIZED (
        SELECT ctid FROM processed WHERE processed_at < now() - older_than
        ORDER BY processed_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM processed WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING 1
    ) SELECT count(*) FROM gone
$$;

COMMENT ON FUNCTION inbox.purge IS
    'Forgets what was processed before that, at most 10,000 rows a call. Returns how many.';

-- A function runs for everyone unless this is said; outbox-migrate grant gives it to workers.
REVOKE EXECUTE ON FUNCTION inbox.purge FROM PUBLIC;
