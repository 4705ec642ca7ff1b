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

-- The receipts of workers: how the work on each message ended, or where it stands.
--
-- Written in batches beside the work, by the main process of a worker (celery_inbox.receipts). One
-- row for each message id: of its endings the one that tells most. Times come as ages, so that the
-- clock of this server alone decides them.

CREATE TABLE inbox.receipt (
    message_id  text PRIMARY KEY,
    task        text NOT NULL,
    outcome     text NOT NULL,
    error       text,
    run         bigint NOT NULL DEFAULT 0,
    worker      text,
    received_at timestamptz,
    finished_at timestamptz,
    noted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT outcome_is_known CHECK (outcome IN ('succeeded', 'failed', 'rejected', 'revoked',
        'ignored', 'retried', 'lost', 'unregistered', 'undecodable', 'held'))
);
-- Purged by age; and whoever computes figures reads on from where it stopped.
CREATE INDEX receipt_noted_at ON inbox.receipt (noted_at);

-- What was thrown away is rare, and asked for often.
CREATE INDEX receipt_thrown ON inbox.receipt (noted_at) WHERE outcome = 'unregistered';

CREATE TABLE inbox.watched (
    task  text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Of two receipts of one message the later run tells more; of one run, the end with more to it: a
-- duplicate that is held, or fails, takes nothing back from a run that has succeeded. Of what ended
-- nothing, and of equals, the last word counts: what was lost is held again once it was sent again.
CREATE FUNCTION inbox.weight(outcome text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE outcome WHEN 'held' THEN 1
                        WHEN 'unregistered' THEN 1 WHEN 'undecodable' THEN 1 WHEN 'lost' THEN 1
                        WHEN 'retried' THEN 2 WHEN 'ignored' THEN 2
                        WHEN 'succeeded' THEN 4 ELSE 3 END
$$;

-- One batch of a worker, by columns: rows of JSON take longer to write and to read. `received` and
-- `finished` are ages, in seconds.
CREATE FUNCTION inbox.note_receipts(
    worker text, ids text[], tasks text[], outcomes text[], errors text[], runs bigint[],
    received float8[], finished float8[]
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    INSERT INTO receipt AS r
        (message_id, task, outcome, error, run, worker, received_at, finished_at, noted_at)
    SELECT DISTINCT ON (n.id)
           n.id, n.task, n.outcome, n.error, n.run, $1,
           clock.at - n.received * interval '1 second',
           clock.at - n.finished * interval '1 second', clock.at
    FROM unnest($2, $3, $4, $5, $6, $7, $8)
             AS n (id, task, outcome, error, run, received, finished),
         (SELECT clock_timestamp() OFFSET 0) AS clock (at)
    ORDER BY n.id, n.run DESC, weight(n.outcome) DESC, n.finished
    ON CONFLICT (message_id) DO UPDATE
       SET task = excluded.task, outcome = excluded.outcome, error = excluded.error,
           run = excluded.run, worker = excluded.worker, received_at = excluded.received_at,
           finished_at = excluded.finished_at, noted_at = excluded.noted_at
     WHERE (excluded.run, weight(excluded.outcome)) >= (r.run, weight(r.outcome))
$$;

-- A worker tells which tasks it keeps receipts of, once, as it starts.
CREATE FUNCTION inbox.watch(tasks text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = inbox, pg_temp AS $$
    INSERT INTO watched (task) SELECT DISTINCT unnest($1) ON CONFLICT DO NOTHING
$$;

-- Of these messages, those that no run has finished, with what is known of them; and those that ended
-- without success, which may have been sent again. What @idempotent has remembered is finished. A
-- message that was retried, or replaced by its own task, goes on in another with the same id and a
-- later run. In order, neighbours are found on one page of the index.
CREATE FUNCTION inbox.unfinished(
    ids text[], OUT message_id text, OUT outcome text, OUT error text, OUT worker text,
    OUT run bigint, OUT noted_at timestamptz
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = inbox, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT i.id, r.outcome, r.error, r.worker, r.run, r.noted_at
    FROM (SELECT DISTINCT unnest($1) AS id ORDER BY 1) i
    LEFT JOIN receipt r ON r.message_id = i.id
    WHERE r.outcome IS DISTINCT FROM 'succeeded'
      AND (r.outcome IN ('retried', 'ignored')
           OR NOT EXISTS (SELECT FROM processed p WHERE p.message_id = i.id))
$$;

COMMENT ON TABLE inbox.receipt IS
    'One row per message that a worker has dealt with, or holds: how that ended.';
COMMENT ON COLUMN inbox.receipt.message_id IS 'The Celery task id.';
COMMENT ON COLUMN inbox.receipt.task IS 'The name of the task.';
COMMENT ON COLUMN inbox.receipt.outcome IS
    'succeeded, failed, rejected, revoked (or expired), ignored, retried; lost: its process died;'
    ' unregistered or undecodable: a worker could not run it; held: a worker has it now.';
COMMENT ON COLUMN inbox.receipt.error IS
    'The name of the exception, where there was one; never its text, which may repeat arguments.';
COMMENT ON COLUMN inbox.receipt.run IS
    'Its retries so far; a million more for each time the task replaced itself.';
COMMENT ON COLUMN inbox.receipt.worker IS 'The node name of the worker.';
COMMENT ON COLUMN inbox.receipt.received_at IS
    'When the worker took it from the broker, by the clock of this server.';
COMMENT ON COLUMN inbox.receipt.finished_at IS
    'When that ended, by the clock of this server. Null: not yet.';
COMMENT ON COLUMN inbox.receipt.noted_at IS 'When this row was written.';
COMMENT ON TABLE inbox.watched IS 'The tasks whose workers leave receipts.';
COMMENT ON COLUMN inbox.watched.task IS 'The name of the task.';
COMMENT ON COLUMN inbox.watched.since IS
    'Messages sent before this time may lack a receipt although they ran.';
COMMENT ON FUNCTION inbox.weight IS 'Private: which of two outcomes of one run tells more.';
COMMENT ON FUNCTION inbox.note_receipts IS 'Private: what a worker writes.';
COMMENT ON FUNCTION inbox.watch IS 'Private: a worker leaves receipts of these tasks from now on.';
COMMENT ON FUNCTION inbox.unfinished IS
    'Of these message ids, those without the receipt of a run that succeeded, and what is known.';

-- A function runs for everyone unless this is said; outbox-migrate grant gives each role its own.
REVOKE EXECUTE ON FUNCTION inbox.note_receipts, inbox.watch, inbox.unfinished FROM PUBLIC;

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
