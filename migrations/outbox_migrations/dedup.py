"""What `outbox_0005` adds for deduplication: one message with a given key is pending at a time.

A producer asks `claim_dedup` before it inserts. Where another message with the key is pending, that
one is locked until the producer's transaction ends: no relay publishes it before what the second
producer wrote can be seen. `docs/decisions/0007-deduplication.md` has the reasons.

`{outbox}` stands for the schema's quoted name.
"""

# `id` is null until the message is inserted, for good if its transaction never inserts it.
TABLE = """
CREATE TABLE {outbox}.dedup (
    key        text PRIMARY KEY,
    message_id text NOT NULL,
    id         bigint,
    looked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT dedup_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 200)
) WITH (fillfactor = 70);
CREATE INDEX dedup_looked_at ON {outbox}.dedup (looked_at);
"""

FUNCTIONS = """
-- Null: no other message with this key is pending, so insert yours. Otherwise the message id of the
-- one that is; do not insert. Producers with the same key take turns, each until it commits.
-- A message that a relay has claimed, were it only once, may be on the wire: it counts no more.
CREATE FUNCTION {outbox}.claim_dedup(dedup_key text, message_id text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
DECLARE
    first record;
    locked text;
BEGIN
    LOOP
        INSERT INTO dedup AS d (key, message_id) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING;
        IF FOUND THEN RETURN NULL; END IF;
        SELECT d.id, d.message_id INTO first FROM dedup d WHERE d.key = $1 FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        LOOP
            PERFORM FROM parked p WHERE p.id = first.id
                AND (p.state = 'scheduled' OR p.state = 'retry' AND p.suspicion = 0) FOR UPDATE;
            IF FOUND THEN RETURN first.message_id; END IF;
            SELECT l.key INTO locked FROM lane l WHERE l.id = first.id FOR UPDATE;
            IF FOUND THEN
                -- A relay that passes by meanwhile leaves it alone: heard when this is committed.
                INSERT INTO lane_news (key) VALUES (locked);
                RETURN first.message_id;
            END IF;
            PERFORM FROM ready r
                WHERE r.id = first.id AND r.lease IS NULL AND r.suspicion = 0 FOR UPDATE;
            IF FOUND THEN RETURN first.message_id; END IF;
            -- Between two of these looks it may have moved from one table to another.
            PERFORM FROM parked p WHERE p.id = first.id
                AND (p.state = 'scheduled' OR p.state = 'retry' AND p.suspicion = 0);
            EXIT WHEN NOT FOUND AND NOT EXISTS (SELECT FROM lane l WHERE l.id = first.id)
                AND NOT EXISTS (SELECT FROM ready r
                    WHERE r.id = first.id AND r.lease IS NULL AND r.suspicion = 0);
        END LOOP;
        UPDATE dedup d SET message_id = $2, id = NULL, looked_at = clock_timestamp()
            WHERE d.key = $1;
        RETURN NULL;
    END LOOP;
END $$;

-- Forgets keys whose message is not pending any more. Each is looked at once an hour.
CREATE FUNCTION {outbox}.forget_dedup() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
    WITH old AS (
        SELECT d.key, d.id FROM dedup d WHERE d.looked_at < now() - interval '1 hour'
        ORDER BY d.looked_at LIMIT 20000 FOR UPDATE SKIP LOCKED
    ), kept AS (
        SELECT o.key FROM old o
        WHERE EXISTS (SELECT FROM ready r WHERE r.id = o.id OFFSET 0)
           OR EXISTS (SELECT FROM parked p WHERE p.id = o.id AND p.state <> 'dead' OFFSET 0)
           OR EXISTS (SELECT FROM lane l WHERE l.id = o.id OFFSET 0)
    ), gone AS (
        DELETE FROM dedup WHERE key = ANY (ARRAY(
            SELECT old.key FROM old EXCEPT SELECT kept.key FROM kept))
    )
    UPDATE dedup SET looked_at = now() WHERE key = ANY (ARRAY(SELECT kept.key FROM kept))
$$;
"""

# The old one goes only when its rights have been given to the new one.
ENQUEUE = """
ALTER FUNCTION {outbox}.enqueue RENAME TO enqueue_before;
CREATE FUNCTION {outbox}.enqueue(
    task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'celery',
    eta timestamptz DEFAULT NULL, task_id text DEFAULT NULL, expires timestamptz DEFAULT NULL,
    priority integer DEFAULT NULL, ordering_key text DEFAULT NULL, dedup_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = {outbox}, pg_temp AS $$
DECLARE
    new_id text := coalesce(task_id, gen_random_uuid()::text);
    first text;
    iso constant text := 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"';
BEGIN
    IF coalesce(task, '') !~ '^[^[:space:][:cntrl:]]+$' THEN
        RAISE EXCEPTION 'enqueue: % is not a task name', coalesce(quote_literal(task), 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give the name the worker registered it under, such as shop.tasks.bill.';
    END IF;
    IF coalesce(queue, '') = '' THEN
        RAISE EXCEPTION 'enqueue: the queue of task % has no name', task
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Leave queue out to use ''celery''.';
    END IF;
    IF args IS NULL OR jsonb_typeof(args) <> 'array' THEN
        RAISE EXCEPTION 'enqueue: args of task % must be a JSON array, not %',
            task, coalesce(jsonb_typeof(args), 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'One argument is an array of one: ''[42]''. Named ones go into kwargs.';
    END IF;
    IF kwargs IS NULL OR jsonb_typeof(kwargs) <> 'object' THEN
        RAISE EXCEPTION 'enqueue: kwargs of task % must be a JSON object, not %',
            task, coalesce(jsonb_typeof(kwargs), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example ''{"order_id": 42}''.';
    END IF;
    IF priority NOT BETWEEN 0 AND 255 THEN
        RAISE EXCEPTION 'enqueue: priority % of task % is outside 0 to 255', priority, task
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF dedup_key IS NOT NULL THEN
        first := claim_dedup(dedup_key, new_id);
        IF first IS NOT NULL THEN RETURN first; END IF;
    END IF;
    INSERT INTO message (message_id, task, routing_key, headers, properties, body, content_type,
                         content_encoding, declare, available_at, expires_at, ordering_key,
                         dedup_key)
    VALUES (
        new_id, task, queue,
        json_build_object(
            'lang', 'py', 'task', task, 'id', new_id, 'shadow', NULL,
            'eta', to_char(eta AT TIME ZONE 'UTC', iso),
            'expires', to_char(expires AT TIME ZONE 'UTC', iso),
            'group', NULL, 'group_index', NULL, 'retries', 0,
            'timelimit', json_build_array(NULL, NULL), 'root_id', new_id, 'parent_id', NULL,
            'argsrepr', left(args::text, 1024), 'kwargsrepr', left(kwargs::text, 1024),
            'origin', 'sql@' || current_database(), 'ignore_result', false,
            'replaced_task_nesting', 0, 'stamped_headers', NULL, 'stamps', json_build_object()),
        json_strip_nulls(json_build_object(
            'delivery_mode', 2, 'priority', priority, 'correlation_id', new_id)),
        convert_to(jsonb_build_array(args, kwargs, jsonb_build_object(
            'callbacks', NULL, 'errbacks', NULL, 'chain', NULL, 'chord', NULL))::text, 'UTF8'),
        'application/json', 'utf-8',
        json_build_array(json_build_object(
            'kind', 'queue', 'name', queue, 'routing_key', queue,
            'exchange', json_build_object('name', queue))),
        eta, expires, ordering_key, dedup_key);
    RETURN new_id;
END $$;
COMMENT ON FUNCTION {outbox}.enqueue IS
    'Enqueues a Celery task from SQL; returns its task id.';
"""

COMMENTS = """
COMMENT ON TABLE {outbox}.dedup IS
    'Private: the last message stored with each dedup_key.';
COMMENT ON FUNCTION {outbox}.claim_dedup IS
    'Null: insert your message with this key. Otherwise the id of the one that is pending.';

REVOKE EXECUTE ON FUNCTION {outbox}.enqueue, {outbox}.claim_dedup, {outbox}.forget_dedup
    FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    FOR role IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_proc p, aclexplode(p.proacl) a
        WHERE p.oid = '{outbox}.enqueue_before'::regproc AND a.grantee <> p.proowner
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION {outbox}.enqueue, {outbox}.claim_dedup TO %s', role);
    END LOOP;
END $$;
DROP FUNCTION {outbox}.enqueue_before;
"""

DROP = """
DROP TABLE {outbox}.dedup;
DROP FUNCTION {outbox}.enqueue, {outbox}.claim_dedup, {outbox}.forget_dedup;
"""
