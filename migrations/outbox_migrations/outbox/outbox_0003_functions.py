"""Create the functions people call: enqueue, retry, discard, cancel, replay.

Every one of them works in the caller's transaction and is safe beside running relays.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations.components import schema_of

revision = "outbox_0003"
down_revision = "outbox_0002"
branch_labels = None

# A Celery task from psql, a trigger or any language: protocol 2, JSON, as Celery writes it.
ENQUEUE = """
CREATE FUNCTION {outbox}.enqueue(
    task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'celery',
    eta timestamptz DEFAULT NULL, task_id text DEFAULT NULL, expires timestamptz DEFAULT NULL,
    priority integer DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = {outbox}, pg_temp AS $$
DECLARE
    new_id text := coalesce(task_id, gen_random_uuid()::text);
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
    INSERT INTO message (message_id, task, routing_key, headers, properties, body, content_type,
                         content_encoding, declare, available_at, expires_at)
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
        eta, expires);
    RETURN new_id;
END $$;
"""

STEERING = """
-- dead -> pending, with a fresh count of attempts.
CREATE FUNCTION {outbox}.retry(message_id text) RETURNS bigint
LANGUAGE sql SET search_path = {outbox}, pg_temp AS $$
    WITH revived AS (
        DELETE FROM parked p USING message m
        WHERE m.message_id = $1 AND p.id = m.id AND p.slot = m.slot AND p.state = 'dead'
        RETURNING p.id, p.slot
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM revived RETURNING 1
    ) SELECT count(*) FROM made
$$;

-- dead or pending -> gone. A message a relay holds at this moment may already be on the wire: kept.
CREATE FUNCTION {outbox}.discard(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w WHERE r.id = w.id AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id RETURNING p.id, p.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) FROM gone
$$;

-- The producer's own second thoughts, in its own transaction. Dead rows are discard()'s business.
CREATE FUNCTION {outbox}.cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w WHERE r.id = w.id AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id AND p.state <> 'dead'
        RETURNING p.id, p.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) > 0 FROM gone
$$;

-- sent -> pending again, with the ids they had.
CREATE FUNCTION {outbox}.replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = {outbox}, pg_temp AS $$
    WITH confirmed AS (
        SELECT DISTINCT unnest(r.ids) AS id FROM receipt r WHERE r.sent_at BETWEEN $1 AND $2
    ), made AS (
        INSERT INTO ready (id, slot)
        SELECT m.id, m.slot FROM confirmed c JOIN message m ON m.id = c.id
        WHERE ($3 IS NULL OR m.task = $3)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
        ON CONFLICT (id) DO NOTHING RETURNING 1
    ) SELECT count(*) FROM made
$$;

COMMENT ON FUNCTION {outbox}.enqueue IS 'Enqueues a Celery task from SQL; returns its task id.';
COMMENT ON FUNCTION {outbox}.retry IS 'dead -> pending. Returns how many.';
COMMENT ON FUNCTION {outbox}.discard IS 'dead or pending -> gone. Returns how many.';
COMMENT ON FUNCTION {outbox}.cancel IS
    'Takes back a message that is still pending, in your transaction. False: too late, or unknown.';
COMMENT ON FUNCTION {outbox}.replay IS
    'sent -> pending again, for messages confirmed between the two times. Returns how many.';
"""


def upgrade() -> None:
    """Create the functions."""
    for part in (ENQUEUE, STEERING):
        op.execute(part.replace("{outbox}", schema_of("outbox")))


def downgrade() -> None:
    """Drop the functions."""
    op.execute(
        """
        DROP FUNCTION {outbox}.enqueue, {outbox}.retry, {outbox}.discard, {outbox}.cancel,
            {outbox}.replay;
        """.replace("{outbox}", schema_of("outbox"))
    )
