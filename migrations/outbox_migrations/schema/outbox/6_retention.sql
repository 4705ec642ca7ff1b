-- Forgets what was sent long enough ago: whole slots by TRUNCATE, single rows in portions.
-- Nothing here deletes a message that is not sent, and nothing waits for a lock under a producer.

-- Empties one slot; what is not sent yet moves to the current slot first. Every refusal to empty
-- it is an exception: it ends a subtransaction, and with it the lock. lock_timeout belongs to the
-- function: what its caller does afterwards may wait again.
CREATE FUNCTION outbox.empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = outbox, pg_temp SET lock_timeout = '50ms' AS $$
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
END $$;
COMMENT ON FUNCTION outbox.empty_slot IS
    'Private: truncates a partition, and keeps what is not sent.';

-- Forgets sent messages older than that. Whole slots go by TRUNCATE; single rows are deleted, at
-- most 10,000 a call, only when asked for (`exact`) or when a retention outlives the sixteen
-- slots. Slots are emptied last: their locks end with the transaction.
CREATE FUNCTION outbox.purge(
    older_than interval, exact boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    newest timestamptz;
    oldest timestamptz;
    over smallint[] := '{}';
    gone bigint := 0;
    deleted bigint;
BEGIN
    -- First it is written down how far back receipts can be missed: a message of before that time
    -- is not taken for one that was never sent.
    INSERT INTO progress AS p (name, at)
    VALUES ('receipts_forgotten', horizon - interval '12 hours')
    ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE p.at < excluded.at;
    DELETE FROM receipt WHERE sent_at < horizon - interval '12 hours';
    DELETE FROM expiry WHERE expired_at < horizon - interval '12 hours';
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
END $$;
COMMENT ON FUNCTION outbox.purge IS
    'Forgets sent messages older than that. Returns about how many.';

-- Retention 0: what was confirmed leaves at once.
CREATE FUNCTION outbox.forget(slots smallint[], ids bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    WITH gone AS (
        DELETE FROM message m USING unnest($1, $2) AS done (slot, id)
        WHERE m.slot = done.slot AND m.id = done.id
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION outbox.forget IS
    'Private: with a retention of 0, what was confirmed leaves at once.';
