-- What the broker has confirmed and no worker has left a receipt of: lost on the way, or not yet
-- run. The receipts are in the schema `inbox` of this database or of another, so that nothing here
-- needs it before it is asked. Confirmed messages are read in the order of their confirms, a
-- portion at a time: what waits to be sent is not looked at, and no producer waits.

-- The next portion, about twenty thousand messages: when its last batch was confirmed, and their ids
-- in the order in which an index has them. Neighbours are read as a range of ids, slot by slot. How
-- many a batch has, its size tells: it is not read for that.
CREATE FUNCTION outbox.confirmed_portion(
    after timestamptz, until timestamptz, task text DEFAULT NULL,
    OUT last timestamptz, OUT message_ids text[]
) LANGUAGE plpgsql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_mergejoin = off
SET enable_hashjoin = off SET enable_nestloop = on SET jit = off AS $$
DECLARE
    of_slot smallint;
BEGIN
    SELECT max(sent_at) INTO last FROM (
        SELECT sent_at, sum(size) OVER (ORDER BY sent_at ROWS UNBOUNDED PRECEDING) - size AS before
        FROM (SELECT r.sent_at, pg_column_size(r.ids) / 8 AS size FROM receipt r
               WHERE r.sent_at > after AND r.sent_at <= until
               ORDER BY r.sent_at LIMIT 2000) batches) sized
    WHERE before < 20000;
    IF last IS NULL THEN RETURN; END IF;
    message_ids := '{}';
    FOR of_slot IN
        SELECT DISTINCT r.slot FROM receipt r WHERE r.sent_at > after AND r.sent_at <= last
    LOOP
        WITH wanted AS MATERIALIZED (
            SELECT DISTINCT unnest(r.ids) AS id FROM receipt r
             WHERE r.sent_at > after AND r.sent_at <= last AND r.slot = of_slot
        ), runs AS MATERIALIZED (
            SELECT min(id) AS lowest, max(id) AS highest FROM (
                SELECT id, count(*) FILTER (WHERE gap > 20) OVER (ORDER BY id) AS run FROM (
                    SELECT id, id - lag(id) OVER (ORDER BY id) AS gap FROM wanted) spaced) numbered
            GROUP BY run
        )
        -- CASE: a condition of its own could become a join, which is planned without knowing how
        -- many.
        SELECT message_ids || coalesce(array_agg(m.name ORDER BY m.name), '{}')
        INTO message_ids
        FROM runs CROSS JOIN LATERAL (
            SELECT x.id, x.message_id::text AS name, x.task FROM message x
             WHERE x.slot = of_slot AND x.id BETWEEN runs.lowest AND runs.highest OFFSET 0) m
        WHERE CASE WHEN m.id IN (SELECT id FROM wanted) THEN $3 IS NULL OR m.task = $3 END;
    END LOOP;
END $$;
COMMENT ON FUNCTION outbox.confirmed_portion IS
    'Private: the next messages that were confirmed after that time.';

-- A retry has the id of the message it follows, and so has what a task replaced itself by.
CREATE FUNCTION outbox.run_number(headers json) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce((regexp_match(headers::text,
                '"replaced_task_nesting": ?(\d{1,6})[,}]'))[1]::bigint, 0) * 1000000
         + coalesce((regexp_match(headers::text, '"retries": ?(\d{1,6})[,}]'))[1]::bigint, 0)
$$;
COMMENT ON FUNCTION outbox.run_number IS
    'Private: which run of its task a message asks for; a later run has a higher number.';

-- Of what inbox.unfinished() found, that which is missing: confirmed in time, not waiting here to
-- be sent again, and either told of by a worker or of a task that was watched by then. What had ended
-- without success, was sent again and confirmed after that, has to end once more; a few seconds later,
-- as the end of a quick task is written down before its confirm. `heard_at` is `noted_at` by the clock
-- of this server, where the inbox has another one.
CREATE FUNCTION outbox.missing_among(found json, watched json, until timestamptz)
RETURNS TABLE (
    id bigint, message_id text, task text, exchange text, routing_key text, declarations text,
    created_at timestamptz, sent_at timestamptz, outcome text, error text, worker text,
    noted_at timestamptz, slot smallint
) LANGUAGE sql STABLE SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off AS $$
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key, m.declare::text, m.created_at,
           done.sent_at, f.outcome, f.error, f.worker, f.noted_at, m.slot
    FROM json_to_recordset($1) AS f (message_id text, outcome text, error text, worker text,
                                     run bigint, noted_at timestamptz, heard_at timestamptz)
    JOIN LATERAL (SELECT * FROM message x WHERE x.message_id = f.message_id OFFSET 0) m ON true
    JOIN LATERAL (
        SELECT min(c.sent_at) AS first_at, max(c.sent_at) AS sent_at FROM confirms_of(m.id, m.slot) c
    ) done ON done.sent_at <= $3
    CROSS JOIN LATERAL (SELECT coalesce(f.heard_at, f.noted_at) AS at) heard
    LEFT JOIN json_to_recordset($2) AS w (task text, since timestamptz) ON w.task = m.task
    WHERE NOT EXISTS (SELECT FROM ready x WHERE x.id = m.id AND x.slot = m.slot)
      AND NOT EXISTS (SELECT FROM parked x WHERE x.id = m.id AND x.slot = m.slot)
      AND NOT EXISTS (SELECT FROM lane x WHERE x.id = m.id AND x.slot = m.slot)
      AND NOT EXISTS (SELECT FROM expiry x WHERE x.id = m.id AND x.slot = m.slot)
      AND CASE
            WHEN f.outcome IS NULL THEN done.sent_at >= w.since
            WHEN f.outcome IN ('retried', 'ignored') THEN run_number(m.headers) > f.run
            WHEN f.outcome IN ('failed', 'rejected', 'revoked') THEN
                done.first_at < heard.at AND done.sent_at > heard.at + interval '10 seconds'
                AND run_number(m.headers) >= f.run
            ELSE run_number(m.headers) >= f.run END
    ORDER BY m.id
$$;
COMMENT ON FUNCTION outbox.missing_among IS 'Private: what is missing of these messages.';

CREATE FUNCTION outbox.find_missing(
    older_than interval, OUT id bigint, OUT message_id text, OUT task text, OUT exchange text,
    OUT routing_key text, OUT created_at timestamptz, OUT sent_at timestamptz, OUT outcome text,
    OUT error text, OUT worker text, OUT noted_at timestamptz
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = outbox, pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    portion record;
    after timestamptz;
    found json;
    watched json;
BEGIN
    IF to_regprocedure('inbox.unfinished(text[])') IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = 'this database has no inbox that could tell what has run',
            HINT = 'Where workers keep it in another database, ask outbox-relay audit --inbox-url;'
                   ' otherwise run outbox-migrate up, and call celery_inbox.receipts(app, connect)'
                   ' in the workers.';
    END IF;
    EXECUTE 'SELECT json_agg(w), min(since) FROM inbox.watched w' INTO watched, after;
    LOOP
        SELECT * INTO portion FROM confirmed_portion(after, horizon);
        EXIT WHEN portion.last IS NULL;
        after := portion.last;
        EXECUTE 'SELECT json_agg(f) FROM inbox.unfinished($1) f'
            INTO found USING portion.message_ids;
        CONTINUE WHEN found IS NULL;
        RETURN QUERY SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key, m.created_at,
                            m.sent_at, m.outcome, m.error, m.worker, m.noted_at
                     FROM missing_among(found, watched, horizon) m;
    END LOOP;
END $$;
COMMENT ON FUNCTION outbox.find_missing IS
    'What was confirmed longer ago than that and has no receipt of a run that ended.';

CREATE VIEW outbox.missing AS
    SELECT * FROM outbox.find_missing(interval '5 minutes');
COMMENT ON VIEW outbox.missing IS
    'Confirmed by the broker more than five minutes ago, and no worker has finished it.';
COMMENT ON COLUMN outbox.missing.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.missing.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.missing.task IS 'The Celery task name.';
COMMENT ON COLUMN outbox.missing.exchange IS
    'Exchange it was published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.missing.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.missing.created_at IS
    'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.missing.sent_at IS 'When the broker confirmed it.';
COMMENT ON COLUMN outbox.missing.outcome IS
    'What a worker has told of it all the same: held, lost, unregistered, undecodable, retried.';
COMMENT ON COLUMN outbox.missing.error IS 'The name of the exception that was told of.';
COMMENT ON COLUMN outbox.missing.worker IS 'Who told of it.';
COMMENT ON COLUMN outbox.missing.noted_at IS 'When.';
