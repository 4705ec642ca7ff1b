-- Forgets old inbox rows and receipts, in portions that hold up nobody.
--
-- Twice the outbox's default retention: a message may be replayed on its last day there, and its
-- copy may then wait in a queue for days before it is recognised.

-- A duplicate of a row in deletion waits for this transaction: hence portions. Two purges at once
-- take different rows. What was purged must not seem to be missing: so it is written down from which
-- time on all is there. That is a little later than the last that was purged: a message may run
-- before the relay, cut off from its database, has noted that it was sent.
CREATE FUNCTION inbox.purge(older_than interval DEFAULT '14 days') RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    UPDATE watched SET since = now() - older_than + least(older_than / 10, interval '1 hour')
     WHERE since < now() - older_than + least(older_than / 10, interval '1 hour')
       AND (EXISTS (SELECT FROM receipt WHERE noted_at < now() - older_than)
            OR EXISTS (SELECT FROM processed WHERE processed_at < now() - older_than));
    WITH old AS MATERIALIZED (
        SELECT ctid FROM processed WHERE processed_at < now() - older_than
        ORDER BY processed_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM processed WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING 1
    ), old_receipts AS MATERIALIZED (
        SELECT ctid FROM receipt WHERE noted_at < now() - older_than
        ORDER BY noted_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    ), receipts_gone AS (
        DELETE FROM receipt WHERE ctid = ANY (ARRAY(SELECT ctid FROM old_receipts)) RETURNING 1
    ) SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM receipts_gone)
$$;

COMMENT ON FUNCTION inbox.purge IS
    'Forgets messages and receipts from before that, at most 10,000 of each. Returns how many.';

-- A function runs for everyone unless this is said; outbox-migrate grant gives it to workers.
REVOKE EXECUTE ON FUNCTION inbox.purge FROM PUBLIC;
