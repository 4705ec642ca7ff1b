-- Deduplication: of messages with the same `dedup_key` one is pending at a time.
--
-- A producer asks `claim_dedup` before it inserts. Where another message with the key is pending,
-- that one is locked until the producer's transaction ends: no relay publishes it before what the
-- second producer wrote can be seen. docs/decisions/0007-deduplication.md has the reasons.

-- `id` is null until the message is inserted, for good if its transaction never inserts it.
CREATE TABLE outbox.dedup (
    key        text PRIMARY KEY,
    message_id text NOT NULL,
    id         bigint,
    looked_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT dedup_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 200)
) WITH (fillfactor = 70);
CREATE INDEX dedup_looked_at ON outbox.dedup (looked_at);
COMMENT ON TABLE outbox.dedup IS 'Private: the last message stored with each dedup_key.';
COMMENT ON COLUMN outbox.dedup.key IS 'The dedup_key.';
COMMENT ON COLUMN outbox.dedup.message_id IS 'Of the last message stored with it.';
COMMENT ON COLUMN outbox.dedup.id IS 'The id of that message; null until it is inserted.';
COMMENT ON COLUMN outbox.dedup.looked_at IS
    'When it was last looked whether that message is still pending.';

-- Work has an id alone to be found by, which may be another message's: this tells.
CREATE FUNCTION outbox.is_message(id bigint, slot smallint, message_id text) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM outbox.message m WHERE m.id = $1 AND m.slot = $2 AND m.message_id = $3)
$$;
COMMENT ON FUNCTION outbox.is_message IS
    'Private: whether what is stored under this id in that slot has this message id.';

-- Whether this very message was stored within so many seconds, by an attempt whose answer its sender
-- has not got. Such an attempt may still be at it, waiting for a standby, say: it is waited for, and
-- whoever is behind sees what it has stored. For an INSERT that is a transaction by itself.
CREATE FUNCTION outbox.is_stored(
    message_id text, headers json, body bytea, seconds double precision
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    since constant timestamptz := clock_timestamp() - seconds * interval '1 second';
BEGIN
    PERFORM pg_advisory_xact_lock(
        hashtextextended(is_stored.message_id, 'message'::regclass::oid::bigint));
    RETURN EXISTS (SELECT FROM message m
        WHERE m.message_id = is_stored.message_id AND m.body = is_stored.body
          AND m.headers::text = is_stored.headers::text
          AND m.created_at > since);
END $$;
COMMENT ON FUNCTION outbox.is_stored IS
    'Private: whether an attempt of the last seconds to store this message has; waits for its end.';

-- Null: no other message with this key is pending, so insert yours. Otherwise the message id of
-- the one that is; do not insert. Producers with the same key take turns, each until it commits.
-- A message that a relay has claimed, were it only once, may be on the wire: it counts no more.
-- Nor does one that has expired, noticed or not: nothing would ever be published for the key.
CREATE FUNCTION outbox.claim_dedup(dedup_key text, message_id text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
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
            EXIT WHEN EXISTS (SELECT FROM message m WHERE m.id = first.id
                AND m.message_id = first.message_id AND m.expires_at <= clock_timestamp());
            PERFORM FROM parked p WHERE p.id = first.id
                AND (p.state = 'scheduled' OR p.state = 'retry' AND p.suspicion = 0)
                AND is_message(p.id, p.slot, first.message_id) FOR UPDATE;
            IF FOUND THEN RETURN first.message_id; END IF;
            SELECT l.key INTO locked FROM lane l WHERE l.id = first.id
                AND is_message(l.id, l.slot, first.message_id) FOR UPDATE;
            IF FOUND THEN
                -- A relay that passes by meanwhile leaves it alone: heard when this is committed.
                INSERT INTO lane_news (key) VALUES (locked);
                RETURN first.message_id;
            END IF;
            PERFORM FROM ready r WHERE r.id = first.id AND r.claim_id IS NULL AND r.suspicion = 0
                AND is_message(r.id, r.slot, first.message_id) FOR UPDATE;
            IF FOUND THEN RETURN first.message_id; END IF;
            -- Between two of these looks it may have moved from one table to another.
            EXIT WHEN NOT EXISTS (SELECT FROM parked p WHERE p.id = first.id
                    AND (p.state = 'scheduled' OR p.state = 'retry' AND p.suspicion = 0)
                    AND is_message(p.id, p.slot, first.message_id))
                AND NOT EXISTS (SELECT FROM lane l WHERE l.id = first.id
                    AND is_message(l.id, l.slot, first.message_id))
                AND NOT EXISTS (SELECT FROM ready r
                    WHERE r.id = first.id AND r.claim_id IS NULL AND r.suspicion = 0
                    AND is_message(r.id, r.slot, first.message_id));
        END LOOP;
        UPDATE dedup d SET message_id = $2, id = NULL, looked_at = clock_timestamp()
            WHERE d.key = $1;
        RETURN NULL;
    END LOOP;
END $$;
COMMENT ON FUNCTION outbox.claim_dedup IS
    'Null: insert your message with this key. Otherwise the id of the one that is pending.';

-- Forgets keys whose message is not pending any more. Each is looked at once an hour. By id alone: one
-- whose id another message has among the work is kept for longer, and claim_dedup is not misled.
CREATE FUNCTION outbox.forget_dedup() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
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
COMMENT ON FUNCTION outbox.forget_dedup IS
    'Private: forgets keys whose message is not pending any more.';
