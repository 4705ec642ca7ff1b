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
