-- Made by `make baseline` from schema/inbox/: change it there.

-- The inbox: one row for each message whose effects have been committed.

CREATE TABLE inbox.processed (
    message_id   text PRIMARY KEY,
    task         text NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    result       json
);
-- Old rows are purged by age. Not brin: its ranges never narrow again once purged space is
-- reused.
CREATE INDEX processed_at ON inbox.processed (processed_at);

CREATE FUNCTION inbox.version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

COMMENT ON SCHEMA inbox IS
    'Which messages have already had their effects, so that a redelivery has none.';
COMMENT ON TABLE inbox.processed IS
    'One row per message processed, committed together with its effects.';
COMMENT ON COLUMN inbox.processed.message_id IS
    'The Celery task id, or the key the task chose.';
COMMENT ON COLUMN inbox.processed.task IS 'The task that processed it.';
COMMENT ON COLUMN inbox.processed.processed_at IS
    'When its transaction began, by the clock of this server.';
COMMENT ON COLUMN inbox.processed.result IS
    'What the first run returned; a duplicate returns it again.';
COMMENT ON FUNCTION inbox.version IS 'The version of this schema that workers ask for.';

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
