BEGIN;

CREATE SCHEMA IF NOT EXISTS "outbox";

CREATE TABLE outbox.schema_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT schema_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> outbox_0001

CREATE SCHEMA IF NOT EXISTS "outbox";

CREATE TABLE "outbox".message (
    id               bigint GENERATED ALWAYS AS IDENTITY,
    slot             smallint NOT NULL
                     DEFAULT (extract(epoch FROM now())::bigint / 43200 % 16)::smallint,
    message_id       text NOT NULL,
    task             text NOT NULL,
    exchange         text NOT NULL DEFAULT '',
    routing_key      text NOT NULL DEFAULT '',
    headers          json NOT NULL DEFAULT '{}',
    properties       json NOT NULL DEFAULT '{}',
    body             bytea NOT NULL,
    content_type     text NOT NULL,
    content_encoding text NOT NULL,
    mandatory        boolean NOT NULL DEFAULT true,
    declare          json NOT NULL DEFAULT '[]',
    available_at     timestamptz,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, slot),
    -- AMQP carries these as short strings: one length byte.
    CONSTRAINT message_id_is_short CHECK (octet_length(message_id) BETWEEN 1 AND 255),
    CONSTRAINT task_is_named CHECK (octet_length(task) BETWEEN 1 AND 1000),
    CONSTRAINT exchange_is_short CHECK (octet_length(exchange) <= 255),
    CONSTRAINT routing_key_is_short CHECK (octet_length(routing_key) <= 255),
    CONSTRAINT content_type_is_short CHECK (octet_length(content_type) BETWEEN 1 AND 255),
    CONSTRAINT content_encoding_is_short CHECK (octet_length(content_encoding) BETWEEN 1 AND 255),
    CONSTRAINT headers_are_an_object CHECK (json_typeof(headers) = 'object'),
    CONSTRAINT properties_are_an_object CHECK (json_typeof(properties) = 'object'),
    CONSTRAINT declare_is_an_array CHECK (json_typeof(declare) = 'array'),
    -- The default max_message_size of RabbitMQ 3; headers must fit one frame.
    CONSTRAINT body_fits_a_broker CHECK (octet_length(body) <= 134217728),
    CONSTRAINT headers_fit_a_frame CHECK (octet_length(headers::text) <= 131072)
) PARTITION BY LIST (slot);

CREATE INDEX message_message_id ON "outbox".message (message_id);

-- Half-empty pages keep the lease a heap-only update: no index entry, a short WAL record.
CREATE TABLE "outbox".ready (
    id          bigint PRIMARY KEY,
    slot        smallint NOT NULL,
    attempts    smallint NOT NULL DEFAULT 0,
    suspicion   smallint NOT NULL DEFAULT 0,
    lease       bigint,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    last_error  text
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE "outbox".parked (
    id           bigint PRIMARY KEY,
    slot         smallint NOT NULL,
    state        text NOT NULL CHECK (state IN ('scheduled', 'retry', 'dead')),
    available_at timestamptz NOT NULL,
    attempts     smallint NOT NULL DEFAULT 0,
    suspicion    smallint NOT NULL DEFAULT 0,
    last_error   text
);
CREATE INDEX parked_due ON "outbox".parked (available_at) WHERE state <> 'dead';
CREATE INDEX parked_state ON "outbox".parked (state, id);

-- One row per settled batch: a sent time for every message at eight bytes each.
CREATE TABLE "outbox".receipt (
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    span    int8range NOT NULL,
    ids     bigint[] NOT NULL
);
CREATE INDEX receipt_sent_at ON "outbox".receipt (sent_at);
CREATE INDEX receipt_span ON "outbox".receipt USING gist (span);;

CREATE TABLE "outbox".message_0 PARTITION OF "outbox".message FOR VALUES IN (0);CREATE TABLE "outbox".message_1 PARTITION OF "outbox".message FOR VALUES IN (1);CREATE TABLE "outbox".message_2 PARTITION OF "outbox".message FOR VALUES IN (2);CREATE TABLE "outbox".message_3 PARTITION OF "outbox".message FOR VALUES IN (3);CREATE TABLE "outbox".message_4 PARTITION OF "outbox".message FOR VALUES IN (4);CREATE TABLE "outbox".message_5 PARTITION OF "outbox".message FOR VALUES IN (5);CREATE TABLE "outbox".message_6 PARTITION OF "outbox".message FOR VALUES IN (6);CREATE TABLE "outbox".message_7 PARTITION OF "outbox".message FOR VALUES IN (7);CREATE TABLE "outbox".message_8 PARTITION OF "outbox".message FOR VALUES IN (8);CREATE TABLE "outbox".message_9 PARTITION OF "outbox".message FOR VALUES IN (9);CREATE TABLE "outbox".message_10 PARTITION OF "outbox".message FOR VALUES IN (10);CREATE TABLE "outbox".message_11 PARTITION OF "outbox".message FOR VALUES IN (11);CREATE TABLE "outbox".message_12 PARTITION OF "outbox".message FOR VALUES IN (12);CREATE TABLE "outbox".message_13 PARTITION OF "outbox".message FOR VALUES IN (13);CREATE TABLE "outbox".message_14 PARTITION OF "outbox".message FOR VALUES IN (14);CREATE TABLE "outbox".message_15 PARTITION OF "outbox".message FOR VALUES IN (15);;

CREATE FUNCTION "outbox".make_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
BEGIN
    INSERT INTO ready (id, slot)
        SELECT id, slot FROM inserted WHERE available_at IS NULL OR available_at <= now();
    INSERT INTO parked (id, slot, state, available_at)
        SELECT id, slot, 'scheduled', available_at FROM inserted WHERE available_at > now();
    RETURN NULL;
END $$;

CREATE TRIGGER make_work AFTER INSERT ON "outbox".message
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION "outbox".make_work();;

COMMENT ON SCHEMA "outbox" IS
    'Transactional outbox for Celery: look at pending, scheduled, sent, dead, stats.';
COMMENT ON TABLE "outbox".message IS
    'Every message kept, exactly as it will go or went on the wire. Insert-only.';
COMMENT ON COLUMN "outbox".message.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN "outbox".message.slot IS
    'Private: the half-day partition the message is stored in.';
COMMENT ON COLUMN "outbox".message.message_id IS 'The Celery task id.';
COMMENT ON COLUMN "outbox".message.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN "outbox".message.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN "outbox".message.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN "outbox".message.headers IS
    'Application headers. json, not jsonb: the text is kept to the letter.';
COMMENT ON COLUMN "outbox".message.properties IS
    'The other AMQP properties: delivery_mode, priority, correlation_id, expiration ...';
COMMENT ON COLUMN "outbox".message.body IS 'The serialised (and perhaps compressed) body.';
COMMENT ON COLUMN "outbox".message.content_type IS
    'MIME type of the body, such as application/json.';
COMMENT ON COLUMN "outbox".message.content_encoding IS 'Encoding of the body, such as utf-8.';
COMMENT ON COLUMN "outbox".message.mandatory IS
    'Whether reaching no queue is a failure. False for fanout.';
COMMENT ON COLUMN "outbox".message.declare IS
    'Queues and exchanges Celery would have declared before publishing.';
COMMENT ON COLUMN "outbox".message.available_at IS
    'Not published before this time (the eta). Null: at once.';
COMMENT ON COLUMN "outbox".message.expires_at IS
    'Not published after this time. Null: never expires.';
COMMENT ON COLUMN "outbox".message.created_at IS
    'When the row was inserted, by the clock of this server.';
COMMENT ON TABLE "outbox".ready IS
    'Private: messages to publish now; a row lives until its message is confirmed.';
COMMENT ON COLUMN "outbox".ready.suspicion IS
    'How often a channel died with this message on it; such rows are published alone.';
COMMENT ON COLUMN "outbox".ready.lease IS
    'The claim that holds the row; failures of an older claim are ignored.';
COMMENT ON COLUMN "outbox".ready.lease_until IS
    'When another relay may claim the row, by the clock of this server.';
COMMENT ON TABLE "outbox".parked IS
    'Private: messages that wait for their time (scheduled, retry) or for a person (dead).';
COMMENT ON TABLE "outbox".receipt IS 'Private: when each batch was confirmed.';;

INSERT INTO outbox.schema_version (version_num) VALUES ('outbox_0001') RETURNING outbox.schema_version.version_num;

-- Running upgrade outbox_0001 -> outbox_0002

CREATE VIEW "outbox".pending AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           m.created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT id, slot, NULL::timestamptz AS available_at, attempts, last_error
            FROM "outbox".ready
        UNION ALL
        SELECT id, slot, available_at, attempts, last_error
            FROM "outbox".parked
            WHERE state = 'retry' OR (state = 'scheduled' AND available_at <= now())
    ) w
    JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot;

CREATE VIEW "outbox".scheduled AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           m.created_at, p.available_at, p.attempts, p.last_error
    FROM "outbox".parked p
    JOIN "outbox".message m ON m.id = p.id AND m.slot = p.slot
    WHERE p.state = 'scheduled' AND p.available_at > now();

CREATE VIEW "outbox".dead AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           m.created_at, p.available_at, p.attempts, p.last_error
    FROM "outbox".parked p
    JOIN "outbox".message m ON m.id = p.id AND m.slot = p.slot
    WHERE p.state = 'dead';

-- A message is sent when no work is left for it; the receipt only says when. OFFSET 0 keeps the two
-- look-ups look-ups: as anti-joins they would read the whole backlog to show twenty rows.
CREATE VIEW "outbox".sent AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           m.created_at,
           (SELECT max(r.sent_at) FROM "outbox".receipt r
             WHERE r.span @> m.id AND m.id = ANY (r.ids)) AS sent_at
    FROM "outbox".message m
    WHERE NOT EXISTS (SELECT FROM "outbox".ready r WHERE r.id = m.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM "outbox".parked p WHERE p.id = m.id OFFSET 0);

-- Counts a table exactly while it is small, from a sample of its pages when it is not.
CREATE FUNCTION "outbox".rough_count(source regclass, condition text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    pages   bigint := pg_relation_size(source) / current_setting('block_size')::bigint;
    percent float8 := 100.0 * 1000 / greatest(pages, 1000);
    counted bigint;
BEGIN
    IF pages <= 1000 THEN
        EXECUTE format('SELECT count(*) FROM %s WHERE %s', source, condition) INTO counted;
        RETURN counted;
    END IF;
    EXECUTE format('SELECT count(*) FROM %s TABLESAMPLE SYSTEM (%s) WHERE %s',
                   source, percent, condition) INTO counted;
    RETURN round(counted * 100.0 / percent);
END $$;

CREATE VIEW "outbox".stats AS
    SELECT "outbox".rough_count('"outbox".ready', 'true')
             + "outbox".rough_count('"outbox".parked',
                   $$state = 'retry' OR (state = 'scheduled' AND available_at <= now())$$)
               AS pending,
           "outbox".rough_count('"outbox".parked',
                   $$state = 'scheduled' AND available_at > now()$$) AS scheduled,
           "outbox".rough_count('"outbox".parked', $$state = 'dead'$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort.
           coalesce(clock_timestamp() - least(
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM "outbox".ready ORDER BY id LIMIT 1) w
                  JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM "outbox".parked
                         WHERE state = 'retry' ORDER BY id LIMIT 1) w
                  JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT available_at FROM "outbox".parked
                 WHERE state <> 'dead' AND available_at <= now()
                 ORDER BY available_at LIMIT 1)), interval '0') AS oldest_pending_age;

COMMENT ON VIEW "outbox".pending IS
    'To be published: due, claimed at this moment, or waiting for another attempt.';
COMMENT ON VIEW "outbox".scheduled IS 'Held until available_at (eta or countdown).';
COMMENT ON VIEW "outbox".sent IS 'Confirmed by the broker, and not yet forgotten by retention.';
COMMENT ON VIEW "outbox".dead IS
    'Given up; last_error says why. outbox.retry(message_id) tries again, outbox.discard deletes.';
COMMENT ON VIEW "outbox".stats IS
    'One row, cheap on any backlog: counts are exact to about 75,000 and sampled beyond.';;

UPDATE outbox.schema_version SET version_num='outbox_0002' WHERE outbox.schema_version.version_num = 'outbox_0001';

-- Running upgrade outbox_0002 -> outbox_0003

CREATE FUNCTION "outbox".enqueue(
    task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'celery',
    eta timestamptz DEFAULT NULL, task_id text DEFAULT NULL, expires timestamptz DEFAULT NULL,
    priority integer DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = "outbox", pg_temp AS $$
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
END $$;;

-- dead -> pending, with a fresh count of attempts.
CREATE FUNCTION "outbox".retry(message_id text) RETURNS bigint
LANGUAGE sql SET search_path = "outbox", pg_temp AS $$
    WITH revived AS (
        DELETE FROM parked p USING message m
        WHERE m.message_id = $1 AND p.id = m.id AND p.slot = m.slot AND p.state = 'dead'
        RETURNING p.id, p.slot
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM revived RETURNING 1
    ) SELECT count(*) FROM made
$$;

-- dead or pending -> gone. A message a relay holds at this moment may already be on the wire: kept.
CREATE FUNCTION "outbox".discard(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
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
CREATE FUNCTION "outbox".cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
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
CREATE FUNCTION "outbox".replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = "outbox", pg_temp AS $$
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

COMMENT ON FUNCTION "outbox".enqueue IS 'Enqueues a Celery task from SQL; returns its task id.';
COMMENT ON FUNCTION "outbox".retry IS 'dead -> pending. Returns how many.';
COMMENT ON FUNCTION "outbox".discard IS 'dead or pending -> gone. Returns how many.';
COMMENT ON FUNCTION "outbox".cancel IS
    'Takes back a message that is still pending, in your transaction. False: too late, or unknown.';
COMMENT ON FUNCTION "outbox".replay IS
    'sent -> pending again, for messages confirmed between the two times. Returns how many.';;

UPDATE outbox.schema_version SET version_num='outbox_0003' WHERE outbox.schema_version.version_num = 'outbox_0002';

-- Running upgrade outbox_0003 -> outbox_0004

-- Empties one slot; what is not sent yet moves to the current slot first.
CREATE FUNCTION "outbox".empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
DECLARE
    part constant text := format('message_%s', old);
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    kept bigint[];
    rows_then bigint;
BEGIN
    IF now_slot = old THEN RETURN 0; END IF;
    -- Waiting here would queue every producer and relay behind us; a later run tries again.
    PERFORM set_config('lock_timeout', '50ms', true);
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    IF EXISTS (SELECT FROM ready WHERE slot = old AND lease_until > now()) THEN RETURN 0; END IF;
    SELECT array_agg(id) INTO kept FROM (
        SELECT id FROM ready WHERE slot = old UNION ALL SELECT id FROM parked WHERE slot = old) w;
    IF cardinality(kept) > 10000 THEN
        RAISE NOTICE 'slot % still holds % messages to be sent', old, cardinality(kept);
        RETURN 0;
    END IF;
    UPDATE message SET slot = now_slot WHERE slot = old AND id = ANY (kept);
    UPDATE ready SET slot = now_slot WHERE id = ANY (kept);
    UPDATE parked SET slot = now_slot WHERE id = ANY (kept);
    -- A relay may have moved work between the two tables meanwhile: a later run tries again.
    IF EXISTS (SELECT FROM ready WHERE slot = old)
            OR EXISTS (SELECT FROM parked WHERE slot = old) THEN
        RAISE lock_not_available;
    END IF;
    SELECT greatest(reltuples, 0) INTO rows_then FROM pg_class WHERE oid = part::regclass;
    EXECUTE format('TRUNCATE %I', part);
    RETURN rows_then;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;

-- Forgets sent messages older than that. Whole slots go by TRUNCATE; single rows are deleted, at
-- most 10,000 a call, only when asked for (`exact`) or when a retention outlives the sixteen slots.
CREATE FUNCTION "outbox".purge(older_than interval, exact boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    newest timestamptz;
    oldest timestamptz;
    gone bigint := 0;
    deleted bigint;
BEGIN
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        SELECT created_at INTO oldest FROM message WHERE slot = s ORDER BY id LIMIT 1;
        IF newest < horizon AND s <> extract(epoch FROM now())::bigint / 43200 % 16 THEN
            gone := gone + empty_slot(s::smallint);
        ELSIF oldest < horizon - (CASE WHEN exact THEN interval '0' ELSE interval '12h' END) THEN
            DELETE FROM message m WHERE m.slot = s AND m.id IN (
                SELECT o.id FROM message o
                WHERE o.slot = s AND o.created_at < horizon
                  AND NOT EXISTS (SELECT FROM ready r WHERE r.id = o.id)
                  AND NOT EXISTS (SELECT FROM parked p WHERE p.id = o.id)
                ORDER BY o.id LIMIT 10000);
            GET DIAGNOSTICS deleted = ROW_COUNT;
            gone := gone + deleted;
        END IF;
    END LOOP;
    DELETE FROM receipt WHERE sent_at < horizon - interval '12 hours';
    RETURN gone;
END $$;

-- Retention 0: what was confirmed leaves at once.
CREATE FUNCTION "outbox".forget(slots smallint[], ids bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
    WITH gone AS (
        DELETE FROM message m USING unnest($1, $2) AS done (slot, id)
        WHERE m.slot = done.slot AND m.id = done.id
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;


COMMENT ON FUNCTION "outbox".purge IS
    'Forgets sent messages older than that. Returns about how many.';

-- What the relay asks before it trusts this schema.
CREATE FUNCTION "outbox".version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

-- A function runs for everyone unless this is said; outbox-migrate grant gives each role its own.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "outbox" FROM PUBLIC;
GRANT EXECUTE ON FUNCTION "outbox".version() TO PUBLIC;;

UPDATE outbox.schema_version SET version_num='outbox_0004' WHERE outbox.schema_version.version_num = 'outbox_0003';

-- Running upgrade outbox_0004 -> outbox_0005

ALTER TABLE "outbox".message ADD COLUMN ordering_key text, ADD COLUMN dedup_key text;
ALTER TABLE "outbox".ready ADD COLUMN lane text;
ALTER TABLE "outbox".parked ADD COLUMN lane text;
CREATE INDEX ready_lane ON "outbox".ready (lane) WHERE lane IS NOT NULL;
CREATE INDEX parked_lane ON "outbox".parked (lane) WHERE lane IS NOT NULL AND state = 'retry';

CREATE TABLE "outbox".lane (
    id   bigint PRIMARY KEY,
    slot smallint NOT NULL,
    key  text NOT NULL,
    CONSTRAINT ordering_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 200)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX lane_key ON "outbox".lane (key, id);

CREATE TABLE "outbox".lane_news (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Whoever holds its only row is the one that may take messages out of lanes.
CREATE TABLE "outbox".lane_gate ();
INSERT INTO "outbox".lane_gate DEFAULT VALUES;;

CREATE OR REPLACE FUNCTION "outbox".make_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
DECLARE
    claimed record;
BEGIN
    PERFORM FROM inserted
        WHERE available_at > now() OR ordering_key IS NOT NULL OR dedup_key IS NOT NULL LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO ready (id, slot) SELECT id, slot FROM inserted;
        RETURN NULL;
    END IF;
    INSERT INTO parked (id, slot, state, available_at, lane)
        SELECT id, slot, 'scheduled', available_at, ordering_key FROM inserted
        WHERE available_at > now();
    INSERT INTO lane (id, slot, key)
        SELECT id, slot, ordering_key FROM inserted
        WHERE ordering_key IS NOT NULL AND (available_at IS NULL OR available_at <= now());
    INSERT INTO ready (id, slot)
        SELECT id, slot FROM inserted
        WHERE ordering_key IS NULL AND (available_at IS NULL OR available_at <= now());
    FOR claimed IN SELECT * FROM inserted WHERE dedup_key IS NOT NULL LOOP
        UPDATE dedup SET id = claimed.id
            WHERE key = claimed.dedup_key AND message_id = claimed.message_id;
    END LOOP;
    RETURN NULL;
END $$;

CREATE FUNCTION "outbox".joined_lane() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
BEGIN
    INSERT INTO lane_news (key) SELECT DISTINCT key FROM joined;
    RETURN NULL;
END $$;
CREATE TRIGGER joined_lane AFTER INSERT ON "outbox".lane
    REFERENCING NEW TABLE AS joined
    FOR EACH STATEMENT EXECUTE FUNCTION "outbox".joined_lane();

-- Also where the message only moved, from one attempt to the wait for the next: then the news finds
-- its lane still taken, and is forgotten.
CREATE FUNCTION "outbox".left_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
BEGIN
    INSERT INTO lane_news (key) VALUES (OLD.lane);
    RETURN NULL;
END $$;
CREATE TRIGGER left_work AFTER DELETE ON "outbox".ready
    FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION "outbox".left_work();
CREATE TRIGGER left_work AFTER DELETE ON "outbox".parked
    FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION "outbox".left_work();;

-- Takes the next message out of each lane there is news of, and leases it: `claim`, for `term`
-- seconds. Looks at `most` news above `above`, or fewer; `news` are those it looked at. News of a
-- lane whose first message somebody holds (about to cancel it, say) is kept for another time.
CREATE FUNCTION "outbox".claim_lanes(
    above bigint, most integer, claim bigint, term double precision,
    OUT news bigint[], OUT ids bigint[], OUT slots smallint[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
BEGIN
    PERFORM FROM lane_news n WHERE n.id > above LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM FROM lane_gate FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    -- A statement of its own, begun behind the gate: it sees all that was taken out before.
    WITH heard AS MATERIALIZED (
        SELECT n.id, n.key FROM lane_news n WHERE n.id > above ORDER BY n.id LIMIT most
    ), head AS MATERIALIZED (
        SELECT k.key, first.id
        FROM (SELECT DISTINCT key FROM heard) k
        CROSS JOIN LATERAL (
            SELECT l.id FROM lane l WHERE l.key = k.key ORDER BY l.id LIMIT 1) first
        WHERE NOT EXISTS (SELECT FROM ready r WHERE r.lane = k.key OFFSET 0)
          AND NOT EXISTS (
            SELECT FROM parked p WHERE p.lane = k.key AND p.state = 'retry' OFFSET 0)
    ), gone AS (
        DELETE FROM lane WHERE id = ANY (ARRAY(
            SELECT l.id FROM lane l WHERE l.id = ANY (ARRAY(SELECT head.id FROM head))
            FOR UPDATE SKIP LOCKED))
        RETURNING id, slot, key
    ), held AS MATERIALIZED (
        SELECT head.key FROM head WHERE head.id <> ALL (ARRAY(SELECT gone.id FROM gone))
    ), done AS (
        DELETE FROM lane_news WHERE id = ANY (ARRAY(
            SELECT heard.id FROM heard WHERE heard.key <> ALL (ARRAY(SELECT held.key FROM held))))
    ), made AS (
        INSERT INTO ready (id, slot, lane, lease, lease_until)
        SELECT id, slot, key, claim, now() + term * interval '1 second' FROM gone
        ON CONFLICT (id) DO NOTHING RETURNING id, slot
    )
    SELECT (SELECT array_agg(heard.id) FROM heard), array_agg(made.id), array_agg(made.slot)
    INTO news, ids, slots FROM made;
END $$;;

CREATE OR REPLACE VIEW "outbox".pending AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           m.created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT id, slot, NULL::timestamptz AS available_at, attempts, last_error
            FROM "outbox".ready
        UNION ALL
        SELECT id, slot, NULL, 0::smallint, NULL FROM "outbox".lane
        UNION ALL
        SELECT id, slot, available_at, attempts, last_error
            FROM "outbox".parked
            WHERE state = 'retry' OR (state = 'scheduled' AND available_at <= now())
    ) w
    JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot;

CREATE OR REPLACE VIEW "outbox".sent AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           m.created_at,
           (SELECT max(r.sent_at) FROM "outbox".receipt r
             WHERE r.span @> m.id AND m.id = ANY (r.ids)) AS sent_at
    FROM "outbox".message m
    WHERE NOT EXISTS (SELECT FROM "outbox".ready r WHERE r.id = m.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM "outbox".parked p WHERE p.id = m.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM "outbox".lane l WHERE l.id = m.id OFFSET 0);

CREATE OR REPLACE VIEW "outbox".stats AS
    SELECT "outbox".rough_count('"outbox".ready', 'true')
             + "outbox".rough_count('"outbox".lane', 'true')
             + "outbox".rough_count('"outbox".parked',
                   $$state = 'retry' OR (state = 'scheduled' AND available_at <= now())$$)
               AS pending,
           "outbox".rough_count('"outbox".parked',
                   $$state = 'scheduled' AND available_at > now()$$) AS scheduled,
           "outbox".rough_count('"outbox".parked', $$state = 'dead'$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort.
           coalesce(clock_timestamp() - least(
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM "outbox".ready ORDER BY id LIMIT 1) w
                  JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM "outbox".lane ORDER BY id LIMIT 1) w
                  JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM "outbox".parked
                         WHERE state = 'retry' ORDER BY id LIMIT 1) w
                  JOIN "outbox".message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT available_at FROM "outbox".parked
                 WHERE state <> 'dead' AND available_at <= now()
                 ORDER BY available_at LIMIT 1)), interval '0') AS oldest_pending_age;;

-- dead -> pending, with a fresh count of attempts; of a lane: to its place in it.
CREATE OR REPLACE FUNCTION "outbox".retry(message_id text) RETURNS bigint
LANGUAGE sql SET search_path = "outbox", pg_temp AS $$
    WITH revived AS (
        DELETE FROM parked p USING message m
        WHERE m.message_id = $1 AND p.id = m.id AND p.slot = m.slot AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM revived WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, lane FROM revived WHERE lane IS NOT NULL
    ) SELECT count(*) FROM revived
$$;

-- dead or pending -> gone. A message a relay holds at this moment may already be on the wire: kept.
CREATE OR REPLACE FUNCTION "outbox".discard(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w WHERE r.id = w.id AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) FROM gone
$$;

-- The producer's own second thoughts, in its own transaction. Dead rows are discard()'s business.
CREATE OR REPLACE FUNCTION "outbox".cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w WHERE r.id = w.id AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id AND p.state <> 'dead'
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) > 0 FROM gone
$$;

-- sent -> pending again, with the ids they had.
CREATE OR REPLACE FUNCTION "outbox".replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = "outbox", pg_temp AS $$
    WITH confirmed AS (
        SELECT DISTINCT unnest(r.ids) AS id FROM receipt r WHERE r.sent_at BETWEEN $1 AND $2
    ), sent AS (
        SELECT m.id, m.slot, m.ordering_key FROM confirmed c JOIN message m ON m.id = c.id
        WHERE ($3 IS NULL OR m.task = $3)
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM sent WHERE ordering_key IS NULL
        ON CONFLICT (id) DO NOTHING RETURNING 1
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, ordering_key FROM sent WHERE ordering_key IS NOT NULL
        ON CONFLICT (id) DO NOTHING RETURNING 1
    ) SELECT (SELECT count(*) FROM made) + (SELECT count(*) FROM queued)
$$;;

-- Empties one slot; what is not sent yet moves to the current slot first.
CREATE OR REPLACE FUNCTION "outbox".empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
DECLARE
    part constant text := format('message_%s', old);
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    kept bigint[];
    rows_then bigint;
BEGIN
    IF now_slot = old THEN RETURN 0; END IF;
    -- Waiting here would queue every producer and relay behind us; a later run tries again.
    PERFORM set_config('lock_timeout', '50ms', true);
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    IF EXISTS (SELECT FROM ready WHERE slot = old AND lease_until > now()) THEN RETURN 0; END IF;
    SELECT array_agg(id) INTO kept FROM (
        SELECT id FROM ready WHERE slot = old UNION ALL SELECT id FROM parked WHERE slot = old
        UNION ALL SELECT id FROM lane WHERE slot = old) w;
    IF cardinality(kept) > 10000 THEN
        RAISE NOTICE 'slot % still holds % messages to be sent', old, cardinality(kept);
        RETURN 0;
    END IF;
    UPDATE message SET slot = now_slot WHERE slot = old AND id = ANY (kept);
    UPDATE ready SET slot = now_slot WHERE id = ANY (kept);
    UPDATE parked SET slot = now_slot WHERE id = ANY (kept);
    UPDATE lane SET slot = now_slot WHERE id = ANY (kept);
    -- A relay may have moved work between the tables meanwhile: a later run tries again.
    IF EXISTS (SELECT FROM ready WHERE slot = old)
            OR EXISTS (SELECT FROM parked WHERE slot = old)
            OR EXISTS (SELECT FROM lane WHERE slot = old) THEN
        RAISE lock_not_available;
    END IF;
    SELECT greatest(reltuples, 0) INTO rows_then FROM pg_class WHERE oid = part::regclass;
    EXECUTE format('TRUNCATE %I', part);
    RETURN rows_then;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;

-- Forgets sent messages older than that. Whole slots go by TRUNCATE; single rows are deleted, at
-- most 10,000 a call, only when asked for (`exact`) or when a retention outlives the sixteen slots.
CREATE OR REPLACE FUNCTION "outbox".purge(
    older_than interval, exact boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    newest timestamptz;
    oldest timestamptz;
    gone bigint := 0;
    deleted bigint;
BEGIN
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        SELECT created_at INTO oldest FROM message WHERE slot = s ORDER BY id LIMIT 1;
        IF newest < horizon AND s <> extract(epoch FROM now())::bigint / 43200 % 16 THEN
            gone := gone + empty_slot(s::smallint);
        ELSIF oldest < horizon - (CASE WHEN exact THEN interval '0' ELSE interval '12h' END) THEN
            DELETE FROM message m WHERE m.slot = s AND m.id IN (
                SELECT o.id FROM message o
                WHERE o.slot = s AND o.created_at < horizon
                  AND NOT EXISTS (SELECT FROM ready r WHERE r.id = o.id)
                  AND NOT EXISTS (SELECT FROM parked p WHERE p.id = o.id)
                  AND NOT EXISTS (SELECT FROM lane l WHERE l.id = o.id)
                ORDER BY o.id LIMIT 10000);
            GET DIAGNOSTICS deleted = ROW_COUNT;
            gone := gone + deleted;
        END IF;
    END LOOP;
    DELETE FROM receipt WHERE sent_at < horizon - interval '12 hours';
    PERFORM forget_dedup();
    RETURN gone;
END $$;

-- Retention 0: what was confirmed leaves at once.
CREATE OR REPLACE FUNCTION "outbox".forget(slots smallint[], ids bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
    WITH gone AS (
        DELETE FROM message m USING unnest($1, $2) AS done (slot, id)
        WHERE m.slot = done.slot AND m.id = done.id
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;;

COMMENT ON COLUMN "outbox".message.ordering_key IS
    'Messages with the same key are published one after another. Null: in no order.';
COMMENT ON COLUMN "outbox".message.dedup_key IS
    'Stored only while no other message with this key was pending. Null: always stored.';
COMMENT ON TABLE "outbox".lane IS
    'Private: messages that wait for others with the same ordering key.';
COMMENT ON TABLE "outbox".lane_news IS
    'Private: ordering keys whose next message may have to be taken out of its lane.';
COMMENT ON TABLE "outbox".lane_gate IS
    'Private: its only row is locked by whoever takes messages out of lanes.';
COMMENT ON FUNCTION "outbox".claim_lanes IS
    'Private: leases the next message of each lane there is news of.';

REVOKE EXECUTE ON FUNCTION "outbox".joined_lane, "outbox".left_work, "outbox".claim_lanes
    FROM PUBLIC;;

CREATE TABLE "outbox".dedup (
    key        text PRIMARY KEY,
    message_id text NOT NULL,
    id         bigint,
    looked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT dedup_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 200)
) WITH (fillfactor = 70);
CREATE INDEX dedup_looked_at ON "outbox".dedup (looked_at);;

-- Null: no other message with this key is pending, so insert yours. Otherwise the message id of the
-- one that is; do not insert. Producers with the same key take turns, each until it commits.
-- A message that a relay has claimed, were it only once, may be on the wire: it counts no more.
CREATE FUNCTION "outbox".claim_dedup(dedup_key text, message_id text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
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
CREATE FUNCTION "outbox".forget_dedup() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
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
$$;;

ALTER FUNCTION "outbox".enqueue RENAME TO enqueue_before;
CREATE FUNCTION "outbox".enqueue(
    task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}', queue text DEFAULT 'celery',
    eta timestamptz DEFAULT NULL, task_id text DEFAULT NULL, expires timestamptz DEFAULT NULL,
    priority integer DEFAULT NULL, ordering_key text DEFAULT NULL, dedup_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = "outbox", pg_temp AS $$
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
COMMENT ON FUNCTION "outbox".enqueue IS
    'Enqueues a Celery task from SQL; returns its task id.';;

COMMENT ON TABLE "outbox".dedup IS
    'Private: the last message stored with each dedup_key.';
COMMENT ON FUNCTION "outbox".claim_dedup IS
    'Null: insert your message with this key. Otherwise the id of the one that is pending.';

REVOKE EXECUTE ON FUNCTION "outbox".enqueue, "outbox".claim_dedup, "outbox".forget_dedup
    FROM PUBLIC;
DO $$
DECLARE
    role text;
BEGIN
    FOR role IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END
        FROM pg_proc p, aclexplode(p.proacl) a
        WHERE p.oid = '"outbox".enqueue_before'::regproc AND a.grantee <> p.proowner
    LOOP
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION "outbox".enqueue, "outbox".claim_dedup TO %s', role);
    END LOOP;
END $$;
DROP FUNCTION "outbox".enqueue_before;;

DO $$
DECLARE
    needed record;
BEGIN
    FOR needed IN
        SELECT DISTINCT a.grantee, more.privilege
        FROM (SELECT attrelid AS relation, attname, attacl AS acl FROM pg_attribute
              UNION ALL SELECT oid, NULL, relacl FROM pg_class) had,
             aclexplode(had.acl) a,
             (VALUES ('message', 'message_id', 'INSERT',
                      'INSERT (ordering_key, dedup_key) ON "outbox".message'),
                     ('message', 'message_id', 'INSERT',
                      'EXECUTE ON FUNCTION "outbox".claim_dedup'),
                     ('ready', 'id', 'SELECT', 'SELECT (id, slot) ON "outbox".lane'),
                     ('ready', NULL, 'SELECT', 'SELECT (id, slot) ON "outbox".lane'),
                     ('ready', NULL, 'INSERT', 'SELECT, INSERT ON "outbox".lane'),
                     ('ready', NULL, 'INSERT', 'SELECT ON "outbox".lane_news'),
                     ('ready', NULL, 'INSERT', 'EXECUTE ON FUNCTION "outbox".claim_lanes'))
             more (relation, attname, had, privilege)
        WHERE had.relation = ('"outbox".' || more.relation)::regclass
          AND had.attname IS NOT DISTINCT FROM more.attname
          AND a.privilege_type = more.had
    LOOP
        EXECUTE format('GRANT %s TO %s', needed.privilege,
                       CASE needed.grantee WHEN 0 THEN 'PUBLIC'
                       ELSE needed.grantee::regrole::text END);
    END LOOP;
END $$;;

UPDATE outbox.schema_version SET version_num='outbox_0005' WHERE outbox.schema_version.version_num = 'outbox_0004';

-- Running upgrade outbox_0005 -> outbox_0006

CREATE INDEX parked_retry ON "outbox".parked (id) WHERE state NOT IN ('scheduled', 'dead');
CREATE INDEX parked_dead ON "outbox".parked (id) WHERE state NOT IN ('scheduled', 'retry');
CREATE INDEX parked_scheduled ON "outbox".parked (id, available_at)
    WHERE state NOT IN ('retry', 'dead');
CREATE INDEX parked_scheduled_at ON "outbox".parked (available_at, id, attempts)
    WHERE state NOT IN ('retry', 'dead');
DROP INDEX "outbox".parked_state;
CREATE INDEX receipt_highest ON "outbox".receipt (upper(span));;

CREATE FUNCTION "outbox".by_index(value anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE COST 2000 AS 'BEGIN RETURN value; END';;

CREATE OR REPLACE VIEW "outbox".pending AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT 'ready' AS kind, NULL AS state, id, id AS key, slot,
               NULL::timestamptz AS available_at, attempts, last_error FROM "outbox".ready
        UNION ALL
        SELECT 'lane', NULL, id, id, slot, NULL, 0::smallint, NULL FROM "outbox".lane
        UNION ALL
        SELECT 'retry', state, id, id, slot, available_at, attempts, last_error
            FROM "outbox".parked
        UNION ALL
        SELECT 'due', state, id + 0, id, slot, available_at, attempts, last_error
            FROM "outbox".parked
    ) w LEFT JOIN "outbox".message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY["outbox".by_index(m.id)])
    WHERE w.key >= "outbox".by_index(0)
      AND (w.kind = 'ready' OR w.kind = 'lane'
        OR w.kind = 'retry' AND w.state NOT IN ('scheduled', 'dead')
        OR w.kind = 'due' AND w.state NOT IN ('retry', 'dead') AND w.available_at <= now()
            AND w.available_at >= "outbox".by_index('-infinity'::timestamptz)
            AND w.attempts >= "outbox".by_index(0))
      AND coalesce(m.id, 0) <> 0;;

CREATE OR REPLACE VIEW "outbox".scheduled AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at, w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM "outbox".parked) w LEFT JOIN "outbox".message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY["outbox".by_index(m.id)])
    WHERE w.state NOT IN ('retry', 'dead') AND w.available_at > "outbox".by_index(now())
      AND w.key >= "outbox".by_index(0) AND coalesce(m.id, 0) <> 0;

CREATE OR REPLACE VIEW "outbox".dead AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at, w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM "outbox".parked) w LEFT JOIN "outbox".message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY["outbox".by_index(m.id)])
    WHERE w.state NOT IN ('scheduled', 'retry') AND w.key >= "outbox".by_index(0)
      AND coalesce(m.id, 0) <> 0;;

CREATE OR REPLACE VIEW "outbox".sent AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'argsrepr', 200) END AS args, CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> 'kwargsrepr', 200) END AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           (SELECT max(r.sent_at) FROM "outbox".receipt r
             WHERE r.span @> w.id AND w.id = ANY (r.ids)) AS sent_at
    FROM (SELECT id, id AS key, slot FROM "outbox".message) w
    LEFT JOIN LATERAL (
        SELECT true AS waits FROM "outbox".ready r WHERE r.id = w.id
        UNION ALL SELECT true FROM "outbox".parked p WHERE p.id = w.id
        UNION ALL SELECT true FROM "outbox".lane l WHERE l.id = w.id LIMIT 1) work ON true
    LEFT JOIN "outbox".message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY["outbox".by_index(m.id)]) AND w.slot = ANY (ARRAY[m.slot])
    WHERE w.key < "outbox".by_index((
            SELECT coalesce(max(upper(r.span)), 9223372036854775807) FROM "outbox".receipt r))
      AND NOT coalesce(work.waits, false) AND coalesce(m.id, 0) <> 0;;

CREATE OR REPLACE VIEW "outbox".stats AS
    SELECT "outbox".rough_count('"outbox".ready', 'true')
             + "outbox".rough_count('"outbox".lane', 'true')
             + "outbox".rough_count('"outbox".parked',
                   $$state = 'retry' OR (state = 'scheduled' AND available_at <= now())$$)
               AS pending,
           "outbox".rough_count('"outbox".parked',
                   $$state = 'scheduled' AND available_at > now()$$) AS scheduled,
           "outbox".rough_count('"outbox".parked', $$state = 'dead'$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort.
           coalesce(clock_timestamp() - (
               SELECT min(coalesce(m.available_at, m.created_at)) FROM (
                   (SELECT id, slot FROM "outbox".ready
                     WHERE id >= "outbox".by_index(0) ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM "outbox".lane
                     WHERE id >= "outbox".by_index(0) ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM "outbox".parked
                     WHERE state NOT IN ('scheduled', 'dead') AND id >= "outbox".by_index(0)
                     ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM "outbox".parked
                     WHERE state NOT IN ('retry', 'dead') AND available_at <= now()
                       AND available_at >= "outbox".by_index('-infinity'::timestamptz)
                       AND id >= "outbox".by_index(0) AND attempts >= "outbox".by_index(0)
                     ORDER BY available_at LIMIT 1)) w
               JOIN "outbox".message m
                 ON m.id = ANY (ARRAY[w.id]) AND m.slot = ANY (ARRAY[w.slot])),
               interval '0') AS oldest_pending_age;;

ALTER FUNCTION "outbox".retry SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off;ALTER FUNCTION "outbox".discard SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off;ALTER FUNCTION "outbox".cancel SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off;;

COMMENT ON VIEW "outbox".pending IS
    'To be published: due, claimed at this moment, waiting in its lane or for another attempt.';
COMMENT ON VIEW "outbox".sent IS
    'Confirmed by the broker, and not yet forgotten by retention. The newest: ORDER BY id DESC.';;

COMMENT ON COLUMN "outbox".pending.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN "outbox".pending.message_id IS 'The Celery task id.';
COMMENT ON COLUMN "outbox".pending.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN "outbox".pending.exchange IS 'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN "outbox".pending.routing_key IS 'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN "outbox".pending.args IS 'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".pending.kwargs IS 'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".pending.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN "outbox".pending.available_at IS 'Since when, or from when on, it may be published.';
COMMENT ON COLUMN "outbox".pending.attempts IS 'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN "outbox".pending.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN "outbox".scheduled.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN "outbox".scheduled.message_id IS 'The Celery task id.';
COMMENT ON COLUMN "outbox".scheduled.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN "outbox".scheduled.exchange IS 'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN "outbox".scheduled.routing_key IS 'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN "outbox".scheduled.args IS 'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".scheduled.kwargs IS 'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".scheduled.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN "outbox".scheduled.available_at IS 'Held until this time (eta or countdown).';
COMMENT ON COLUMN "outbox".scheduled.attempts IS 'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN "outbox".scheduled.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN "outbox".dead.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN "outbox".dead.message_id IS 'The Celery task id.';
COMMENT ON COLUMN "outbox".dead.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN "outbox".dead.exchange IS 'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN "outbox".dead.routing_key IS 'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN "outbox".dead.args IS 'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".dead.kwargs IS 'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".dead.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN "outbox".dead.available_at IS 'When it was given up.';
COMMENT ON COLUMN "outbox".dead.attempts IS 'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN "outbox".dead.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN "outbox".sent.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN "outbox".sent.message_id IS 'The Celery task id.';
COMMENT ON COLUMN "outbox".sent.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN "outbox".sent.exchange IS 'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN "outbox".sent.routing_key IS 'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN "outbox".sent.args IS 'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".sent.kwargs IS 'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN "outbox".sent.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN "outbox".sent.sent_at IS 'When the broker confirmed it; after a replay, the last time.';
COMMENT ON COLUMN "outbox".stats.pending IS 'How many are to be published; exact to about 75,000, sampled beyond.';
COMMENT ON COLUMN "outbox".stats.scheduled IS 'How many are held until their time.';
COMMENT ON COLUMN "outbox".stats.dead IS 'How many were given up.';
COMMENT ON COLUMN "outbox".stats.oldest_pending_age IS 'For how long the oldest pending message has been due.';
COMMENT ON COLUMN "outbox".ready.id IS 'The id of the message.';
COMMENT ON COLUMN "outbox".ready.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN "outbox".ready.attempts IS 'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN "outbox".ready.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN "outbox".ready.lane IS 'The ordering key, of a message that was taken out of its lane.';
COMMENT ON COLUMN "outbox".parked.id IS 'The id of the message.';
COMMENT ON COLUMN "outbox".parked.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN "outbox".parked.state IS 'scheduled (until its eta), retry (until its next attempt) or dead.';
COMMENT ON COLUMN "outbox".parked.available_at IS 'When it becomes ready again, or since when it is dead.';
COMMENT ON COLUMN "outbox".parked.attempts IS 'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN "outbox".parked.suspicion IS 'How often a channel died with this message on it.';
COMMENT ON COLUMN "outbox".parked.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN "outbox".parked.lane IS 'The ordering key, if the message has one.';
COMMENT ON COLUMN "outbox".receipt.sent_at IS 'When the batch was settled.';
COMMENT ON COLUMN "outbox".receipt.span IS 'From the lowest to the highest id of the batch.';
COMMENT ON COLUMN "outbox".receipt.ids IS 'The ids of the messages that were confirmed.';
COMMENT ON COLUMN "outbox".lane.id IS 'The id of the message.';
COMMENT ON COLUMN "outbox".lane.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN "outbox".lane.key IS 'The ordering key.';
COMMENT ON COLUMN "outbox".dedup.key IS 'The dedup_key.';
COMMENT ON COLUMN "outbox".dedup.message_id IS 'Of the last message stored with it.';
COMMENT ON COLUMN "outbox".dedup.id IS 'The id of that message; null until it is inserted.';
COMMENT ON COLUMN "outbox".dedup.looked_at IS 'When it was last looked whether that message is still pending.';
COMMENT ON COLUMN "outbox".lane_news.id IS 'Order of the news.';
COMMENT ON COLUMN "outbox".lane_news.key IS 'The ordering key that there is news of.';
COMMENT ON FUNCTION "outbox".by_index IS 'Private: its argument, at a price that only an index look-up pays just once.';
COMMENT ON FUNCTION "outbox".claim_lanes IS 'Private: leases the next message of each lane there is news of.';
COMMENT ON FUNCTION "outbox".empty_slot IS 'Private: truncates a partition, and keeps what is not sent.';
COMMENT ON FUNCTION "outbox".forget IS 'Private: with a retention of 0, what was confirmed leaves at once.';
COMMENT ON FUNCTION "outbox".forget_dedup IS 'Private: forgets keys whose message is not pending any more.';
COMMENT ON FUNCTION "outbox".joined_lane IS 'Private: leaves word of the keys of messages that joined a lane.';
COMMENT ON FUNCTION "outbox".left_work IS 'Private: leaves word of the key of a message that has left the work.';
COMMENT ON FUNCTION "outbox".make_work IS 'Private: makes a work row of each message inserted.';
COMMENT ON FUNCTION "outbox".rough_count IS 'Private: counts a small table exactly, and a large one by a sample.';
COMMENT ON FUNCTION "outbox".version IS 'The version of this schema that relays ask for.';;

UPDATE outbox.schema_version SET version_num='outbox_0006' WHERE outbox.schema_version.version_num = 'outbox_0005';

-- Running upgrade outbox_0006 -> outbox_0007

ALTER TABLE "outbox".message
    ADD CONSTRAINT properties_fit_a_frame
        CHECK (octet_length(properties::text) <= 131072) NOT VALID,
    ADD CONSTRAINT declare_is_short CHECK (octet_length(declare::text) <= 131072) NOT VALID;;

CREATE OR REPLACE FUNCTION "outbox".empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = "outbox", pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    part constant text := format('message_%s', old);
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    kept bigint[];
    rows_then bigint;
BEGIN
    -- At any other level the snapshot is older than the lock: what came between them is not seen.
    IF now_slot = old OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN 0;
    END IF;
    -- Waiting here would queue every producer and relay behind us; a later run tries again.
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    IF EXISTS (SELECT FROM ready WHERE slot = old AND lease_until > now()) THEN
        RAISE lock_not_available;
    END IF;
    SELECT array_agg(id) INTO kept FROM (
        SELECT id FROM ready WHERE slot = old UNION ALL SELECT id FROM parked WHERE slot = old
        UNION ALL SELECT id FROM lane WHERE slot = old) w;
    IF cardinality(kept) > 10000 THEN
        RAISE NOTICE 'slot % still holds % messages to be sent', old, cardinality(kept);
        RAISE lock_not_available;
    END IF;
    UPDATE message SET slot = now_slot WHERE slot = old AND id = ANY (kept);
    UPDATE ready SET slot = now_slot WHERE id = ANY (kept);
    UPDATE parked SET slot = now_slot WHERE id = ANY (kept);
    UPDATE lane SET slot = now_slot WHERE id = ANY (kept);
    -- A relay may have moved work between the tables meanwhile: a later run tries again.
    IF EXISTS (SELECT FROM ready WHERE slot = old)
            OR EXISTS (SELECT FROM parked WHERE slot = old)
            OR EXISTS (SELECT FROM lane WHERE slot = old) THEN
        RAISE lock_not_available;
    END IF;
    SELECT greatest(reltuples, 0) INTO rows_then FROM pg_class WHERE oid = part::regclass;
    EXECUTE format('TRUNCATE %I', part);
    RETURN rows_then;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN 0;
    WHEN check_violation THEN
        -- From before the checks: it cannot be moved, and is kept where it is until it is sent.
        RAISE NOTICE 'slot % holds a message too large to be moved', old;
        RETURN 0;
END $$;;

CREATE OR REPLACE FUNCTION "outbox".purge(
    older_than interval, exact boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = "outbox", pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    newest timestamptz;
    oldest timestamptz;
    over smallint[] := '{}';
    gone bigint := 0;
    deleted bigint;
BEGIN
    DELETE FROM receipt WHERE sent_at < horizon - interval '12 hours';
    PERFORM forget_dedup();
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        SELECT created_at INTO oldest FROM message WHERE slot = s ORDER BY id LIMIT 1;
        IF newest < horizon AND s <> extract(epoch FROM now())::bigint / 43200 % 16 THEN
            over := over || s::smallint;
        ELSIF oldest < horizon - (CASE WHEN exact THEN interval '0' ELSE interval '12h' END) THEN
            DELETE FROM message m WHERE m.slot = s AND m.id IN (
                SELECT o.id FROM message o
                WHERE o.slot = s AND o.created_at < horizon
                  AND NOT EXISTS (SELECT FROM ready r WHERE r.id = o.id)
                  AND NOT EXISTS (SELECT FROM parked p WHERE p.id = o.id)
                  AND NOT EXISTS (SELECT FROM lane l WHERE l.id = o.id)
                ORDER BY o.id LIMIT 10000);
            GET DIAGNOSTICS deleted = ROW_COUNT;
            gone := gone + deleted;
        END IF;
    END LOOP;
    FOR s IN 1..cardinality(over) LOOP
        gone := gone + empty_slot(over[s]);
    END LOOP;
    RETURN gone;
END $$;;

ALTER TABLE "outbox".receipt ALTER COLUMN ids SET STORAGE EXTERNAL;;

UPDATE outbox.schema_version SET version_num='outbox_0007' WHERE outbox.schema_version.version_num = 'outbox_0006';

COMMIT;

BEGIN;

CREATE SCHEMA IF NOT EXISTS "inbox";

CREATE TABLE inbox.schema_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT schema_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> inbox_0001

CREATE SCHEMA IF NOT EXISTS "inbox";

CREATE TABLE "inbox".processed (
    message_id   text PRIMARY KEY,
    task         text NOT NULL,
    processed_at timestamptz NOT NULL DEFAULT now(),
    result       json
);
-- Old rows are purged by age. Not brin: its ranges never narrow again once purged space is reused.
CREATE INDEX processed_at ON "inbox".processed (processed_at);

CREATE FUNCTION "inbox".version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

COMMENT ON SCHEMA "inbox" IS
    'Which messages have already had their effects, so that a redelivery has none.';
COMMENT ON TABLE "inbox".processed IS
    'One row per message processed, committed together with its effects.';
COMMENT ON COLUMN "inbox".processed.message_id IS
    'The Celery task id, or the key the task chose.';
COMMENT ON COLUMN "inbox".processed.task IS 'The task that processed it.';
COMMENT ON COLUMN "inbox".processed.processed_at IS
    'When its transaction began, by the clock of this server.';
COMMENT ON COLUMN "inbox".processed.result IS
    'What the first run returned; a duplicate returns it again.';;

INSERT INTO inbox.schema_version (version_num) VALUES ('inbox_0001') RETURNING inbox.schema_version.version_num;

-- Running upgrade inbox_0001 -> inbox_0002

-- A duplicate of a row in deletion waits for this transaction: hence portions. Two purges at once
-- take different rows.
CREATE FUNCTION "inbox".purge(older_than interval DEFAULT '14 days') RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = "inbox", pg_temp AS $$
    WITH old AS MATERIALIZED (
        SELECT ctid FROM processed WHERE processed_at < now() - older_than
        ORDER BY processed_at LIMIT 10000 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM processed WHERE ctid = ANY (ARRAY(SELECT ctid FROM old)) RETURNING 1
    ) SELECT count(*) FROM gone
$$;

COMMENT ON FUNCTION "inbox".purge IS
    'Forgets what was processed before that, at most 10,000 rows a call. Returns how many.';

-- A function runs for everyone unless this is said; outbox-migrate grant gives it to workers.
REVOKE EXECUTE ON FUNCTION "inbox".purge FROM PUBLIC;;

UPDATE inbox.schema_version SET version_num='inbox_0002' WHERE inbox.schema_version.version_num = 'inbox_0001';

COMMIT;


