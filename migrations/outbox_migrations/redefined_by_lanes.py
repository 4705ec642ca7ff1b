"""What `outbox_0005` says anew, because messages may wait in lanes: views, steering and retention.

Each is as it was before, with the table `lane` as a third place to look.

`{outbox}` stands for the schema's quoted name.
"""

from outbox_migrations.outbox.outbox_0002_views import SHORT

VIEWS = """
CREATE OR REPLACE VIEW {outbox}.pending AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           {args}, {kwargs},
           m.created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT id, slot, NULL::timestamptz AS available_at, attempts, last_error
            FROM {outbox}.ready
        UNION ALL
        SELECT id, slot, NULL, 0::smallint, NULL FROM {outbox}.lane
        UNION ALL
        SELECT id, slot, available_at, attempts, last_error
            FROM {outbox}.parked
            WHERE state = 'retry' OR (state = 'scheduled' AND available_at <= now())
    ) w
    JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot;

CREATE OR REPLACE VIEW {outbox}.sent AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           {args}, {kwargs},
           m.created_at,
           (SELECT max(r.sent_at) FROM {outbox}.receipt r
             WHERE r.span @> m.id AND m.id = ANY (r.ids)) AS sent_at
    FROM {outbox}.message m
    WHERE NOT EXISTS (SELECT FROM {outbox}.ready r WHERE r.id = m.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {outbox}.parked p WHERE p.id = m.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {outbox}.lane l WHERE l.id = m.id OFFSET 0);

CREATE OR REPLACE VIEW {outbox}.stats AS
    SELECT {outbox}.rough_count('{outbox}.ready', 'true')
             + {outbox}.rough_count('{outbox}.lane', 'true')
             + {outbox}.rough_count('{outbox}.parked',
                   $$state = 'retry' OR (state = 'scheduled' AND available_at <= now())$$)
               AS pending,
           {outbox}.rough_count('{outbox}.parked',
                   $$state = 'scheduled' AND available_at > now()$$) AS scheduled,
           {outbox}.rough_count('{outbox}.parked', $$state = 'dead'$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort.
           coalesce(clock_timestamp() - least(
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM {outbox}.ready ORDER BY id LIMIT 1) w
                  JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM {outbox}.lane ORDER BY id LIMIT 1) w
                  JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM {outbox}.parked
                         WHERE state = 'retry' ORDER BY id LIMIT 1) w
                  JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT available_at FROM {outbox}.parked
                 WHERE state <> 'dead' AND available_at <= now()
                 ORDER BY available_at LIMIT 1)), interval '0') AS oldest_pending_age;
"""

STEERING = """
-- dead -> pending, with a fresh count of attempts; of a lane: to its place in it.
CREATE OR REPLACE FUNCTION {outbox}.retry(message_id text) RETURNS bigint
LANGUAGE sql SET search_path = {outbox}, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION {outbox}.discard(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION {outbox}.cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION {outbox}.replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SET search_path = {outbox}, pg_temp AS $$
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
$$;
"""

RETENTION = """
-- Empties one slot; what is not sent yet moves to the current slot first.
CREATE OR REPLACE FUNCTION {outbox}.empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION {outbox}.purge(
    older_than interval, exact boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
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
CREATE OR REPLACE FUNCTION {outbox}.forget(slots smallint[], ids bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
    WITH gone AS (
        DELETE FROM message m USING unnest($1, $2) AS done (slot, id)
        WHERE m.slot = done.slot AND m.id = done.id
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;
"""

for _name in ("args", "kwargs"):
    VIEWS = VIEWS.replace("{" + _name + "}", SHORT.replace("{name}", _name))
