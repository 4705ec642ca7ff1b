-- A Celery task from psql, a trigger or any language: protocol 2, JSON, as Celery writes it.

-- SQL cannot see the app's settings: what it needs of them is chosen here, once for the schema.
CREATE TABLE outbox.setting (
    name  text PRIMARY KEY CHECK (name = 'default_queue'),
    value text NOT NULL CHECK (octet_length(value) BETWEEN 1 AND 255)
);
COMMENT ON TABLE outbox.setting IS 'Private: what outbox.set_default_queue has chosen.';
COMMENT ON COLUMN outbox.setting.name IS 'Which setting: default_queue.';
COMMENT ON COLUMN outbox.setting.value IS 'Its value.';

CREATE FUNCTION outbox.default_queue() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    SELECT coalesce((SELECT value FROM setting WHERE name = 'default_queue'), 'celery')
$$;
COMMENT ON FUNCTION outbox.default_queue IS
    'Where enqueue() sends tasks that name no queue; see set_default_queue().';

CREATE FUNCTION outbox.set_default_queue(queue text) RETURNS void
LANGUAGE plpgsql SET search_path = outbox, pg_temp AS $$
BEGIN
    IF coalesce(octet_length(queue), 0) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'set_default_queue: a queue has a name of 1 to 255 bytes'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give the task_default_queue of the Celery app.';
    END IF;
    INSERT INTO setting (name, value) VALUES ('default_queue', queue)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END $$;
COMMENT ON FUNCTION outbox.set_default_queue IS
    'Chooses the queue of enqueue(): the task_default_queue of the app. For the schema''s owner.';

CREATE FUNCTION outbox.enqueue(
    task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}',
    queue text DEFAULT outbox.default_queue(), eta timestamptz DEFAULT NULL,
    task_id text DEFAULT NULL, expires timestamptz DEFAULT NULL, priority integer DEFAULT NULL,
    ordering_key text DEFAULT NULL, dedup_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = outbox, pg_temp AS $$
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
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('Leave queue out to use %L.', default_queue());
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
COMMENT ON FUNCTION outbox.enqueue IS 'Enqueues a Celery task from SQL; returns its task id.';
