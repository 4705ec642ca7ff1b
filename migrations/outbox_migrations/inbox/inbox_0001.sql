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

-- Makes half of a task's transaction impossible to commit.
--
-- Which message's task is at work is a setting of its transaction alone, celery_inbox.running: it
-- ends with the transaction, and a savepoint that is rolled back puts it back to what it was. Rows
-- that nobody claimed with it (a restored dump, replication, workers before this version) are let
-- pass. 2DI01 is of the class "invalid transaction termination", in the part left to
-- implementations.

CREATE FUNCTION inbox.refuse_half() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('celery_inbox.running', true) = NEW.message_id THEN
        RAISE EXCEPTION USING
            ERRCODE = '2DI01',
            MESSAGE = 'an @idempotent task may not commit before it ends',
            DETAIL = 'The message would count as processed with a part of its effects.',
            HINT = 'Leave the commit to @idempotent; give it a connection that is not in'
                   ' autocommit; do not use SET CONSTRAINTS ALL IMMEDIATE.';
    END IF;
    RETURN NULL;
END $$;

-- Asked at every COMMIT, whoever sends it; ALWAYS: with session_replication_role = replica, too.
CREATE CONSTRAINT TRIGGER whole AFTER INSERT ON inbox.processed
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_setting('celery_inbox.running', true) = NEW.message_id)
    EXECUTE FUNCTION inbox.refuse_half();
ALTER TABLE inbox.processed ENABLE ALWAYS TRIGGER whole;

-- A function, so that the COMMIT may follow it unread: where it fails, COMMIT rolls back.
CREATE FUNCTION inbox.finish(message_id text, result json) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('celery_inbox.running', true) IS DISTINCT FROM finish.message_id THEN
        RAISE EXCEPTION USING
            ERRCODE = '2DI01',
            MESSAGE = 'an @idempotent task has ended its transaction itself',
            DETAIL = 'The transaction that held its inbox row is gone.',
            HINT = 'Leave commit, rollback and close to @idempotent.';
    END IF;
    PERFORM set_config('celery_inbox.running', '', true);
    IF finish.result IS NOT NULL THEN
        UPDATE inbox.processed p SET result = finish.result
         WHERE p.message_id = finish.message_id;
    END IF;
END $$;

COMMENT ON FUNCTION inbox.refuse_half IS
    'Lets no transaction commit in which a task has begun and not ended.';
COMMENT ON FUNCTION inbox.finish IS
    'The last statement of a task''s transaction: keeps its result and allows the commit.';

-- Which workers are alive, which queues they consume, and which tasks they know.
--
-- A worker says so when it connects to the broker, and again whenever that changes; meanwhile it
-- beats. This server's clock decides who is alive: whoever reads it compares alive_until with
-- now(), and needs to know nothing of how often a worker beats.

CREATE TABLE inbox.worker (
    node        text PRIMARY KEY,
    queues      text[] NOT NULL,
    tasks       text[] NOT NULL,
    said_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    alive_until timestamptz NOT NULL
) WITH (fillfactor = 50);

COMMENT ON TABLE inbox.worker IS
    'One row per worker node; alive while alive_until is in the future.';
COMMENT ON COLUMN inbox.worker.node IS 'The name that the worker has in Celery.';
COMMENT ON COLUMN inbox.worker.queues IS 'The queues it consumes.';
COMMENT ON COLUMN inbox.worker.tasks IS 'The tasks it knows; it would refuse any other.';
COMMENT ON COLUMN inbox.worker.said_at IS 'When it last said which queues and tasks these are.';
COMMENT ON COLUMN inbox.worker.seen_at IS 'When it was last heard of, by the clock of this server.';
COMMENT ON COLUMN inbox.worker.alive_until IS
    'It counts as alive until then, by the clock of this server.';

-- Rows of workers that were lost are kept for a day, for whoever asks what became of a message.
CREATE FUNCTION inbox.announce(node text, said json, seconds float8) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    DELETE FROM worker w WHERE w.node = ANY (ARRAY(
        SELECT old.node FROM worker old WHERE old.alive_until < now() - interval '1 day'
        FOR UPDATE SKIP LOCKED));
    INSERT INTO worker (node, queues, tasks, alive_until) VALUES (
        announce.node,
        ARRAY(SELECT json_array_elements_text(said -> 'queues')),
        ARRAY(SELECT json_array_elements_text(said -> 'tasks')),
        clock_timestamp() + seconds * interval '1 second')
    ON CONFLICT ON CONSTRAINT worker_pkey DO UPDATE
       SET queues = excluded.queues, tasks = excluded.tasks, said_at = excluded.said_at,
           seen_at = excluded.seen_at, alive_until = excluded.alive_until
$$;
COMMENT ON FUNCTION inbox.announce IS
    'A worker says which queues it consumes and which tasks it knows, and is alive for so long.';

-- False where nobody knows the worker: it announces itself again.
CREATE FUNCTION inbox.beat(node text, seconds float8) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    WITH beaten AS (
        UPDATE worker w SET seen_at = clock_timestamp(),
               alive_until = clock_timestamp() + seconds * interval '1 second'
         WHERE w.node = beat.node RETURNING 1
    ) SELECT EXISTS (SELECT FROM beaten)
$$;
COMMENT ON FUNCTION inbox.beat IS 'A worker is alive for so long again. False: it is not known.';

CREATE FUNCTION inbox.leave(node text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    DELETE FROM worker w WHERE w.node = leave.node
$$;
COMMENT ON FUNCTION inbox.leave IS 'A worker takes no more messages.';

REVOKE EXECUTE ON FUNCTION inbox.announce, inbox.beat, inbox.leave FROM PUBLIC;
