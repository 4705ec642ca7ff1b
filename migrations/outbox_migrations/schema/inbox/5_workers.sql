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
