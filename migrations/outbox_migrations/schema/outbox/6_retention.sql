-- Forgets what was sent long enough ago: whole slots by TRUNCATE, single rows in portions.
-- Nothing here deletes a message that is not sent, and nothing waits for a lock under a producer.
-- Each call does one portion, whose size does not depend on what there is: who calls commits it,
-- and calls again while there is more.

-- Moves a portion of what is not sent yet from an old slot to the current one: a thousand
-- messages, or as many as make 16 MiB. What a relay holds, or somebody has locked, stays.
CREATE FUNCTION outbox.move_unsent(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    found bigint[];
    too_many bigint[];
BEGIN
    SELECT array_agg(id) INTO found FROM (
        SELECT id FROM (
            SELECT id FROM parked WHERE slot = old ORDER BY id LIMIT 1000
            FOR UPDATE SKIP LOCKED) waiting
        UNION ALL SELECT id FROM (
            SELECT id FROM lane WHERE slot = old ORDER BY id LIMIT 1000
            FOR UPDATE SKIP LOCKED) in_lanes
        UNION ALL SELECT id FROM (
            SELECT r.id FROM ready r
            WHERE r.id = ANY (ARRAY(
                SELECT w.id FROM work_between(old) w WHERE w.slot = old ORDER BY w.id LIMIT 1000))
              AND r.slot = old AND r.lease_until < now()
            FOR UPDATE SKIP LOCKED) due
        ORDER BY id LIMIT 1000) unsent;
    -- By what is stored, compressed: that is what moving it costs.
    SELECT array_agg(id) INTO too_many FROM (
        SELECT m.id, row_number() OVER by_id AS place, sum(
            pg_column_size(m.body) + pg_column_size(m.headers)
            + pg_column_size(m.properties) + pg_column_size(m.declare)) OVER by_id AS bytes
        FROM message m WHERE m.slot = old AND m.id = ANY (found)
        WINDOW by_id AS (ORDER BY m.id)) sized
    WHERE place > 1 AND bytes > 16777216;
    -- Where another message has its id in the current slot, it waits for the next half-day.
    found := ARRAY(SELECT unnest(found) EXCEPT SELECT unnest(too_many)
                   EXCEPT SELECT m.id FROM message m WHERE m.slot = now_slot AND m.id = ANY (found));
    UPDATE message SET slot = now_slot WHERE slot = old AND id = ANY (found);
    UPDATE ready SET slot = now_slot WHERE slot = old AND id = ANY (found);
    UPDATE parked SET slot = now_slot WHERE slot = old AND id = ANY (found);
    UPDATE lane SET slot = now_slot WHERE slot = old AND id = ANY (found);
    RETURN cardinality(found);
EXCEPTION WHEN check_violation THEN
    -- From before the checks: it cannot be moved, and is kept where it is until it is sent.
    RAISE NOTICE 'slot % holds a message too large to be moved', old;
    RETURN 0;
END $$;
COMMENT ON FUNCTION outbox.move_unsent IS
    'Private: moves a portion of what is not sent out of an old slot. Returns how many.';

-- The work with ids as in that slot, 50,000 at most: `ready` has no index on the slot, because
-- each message would pay for it.
CREATE FUNCTION outbox.work_between(old smallint) RETURNS TABLE (id bigint, slot smallint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
    SELECT r.id, r.slot FROM ready r
    WHERE r.id BETWEEN (SELECT m.id FROM message m WHERE m.slot = old ORDER BY m.id LIMIT 1)
                   AND (SELECT m.id FROM message m WHERE m.slot = old ORDER BY m.id DESC LIMIT 1)
    ORDER BY r.id LIMIT 50000
$$;
COMMENT ON FUNCTION outbox.work_between IS
    'Private: work with ids as in that slot, up to 50,000 rows.';

-- Empties one slot, if all in it is sent: the rest is moved before. Every refusal to empty it is
-- an exception: it ends a subtransaction, and with it the lock. lock_timeout belongs to the
-- function: what its caller does afterwards may wait again.
CREATE FUNCTION outbox.empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = outbox, pg_temp SET lock_timeout = '50ms'
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    part constant text := format('message_%s', old);
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    unsent boolean;
    rows_then bigint;
BEGIN
    -- At any other level the snapshot is older than the lock: what came between them is not seen.
    IF now_slot = old OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN 0;
    END IF;
    FOR attempt IN 1..2 LOOP
        unsent := EXISTS (SELECT FROM parked WHERE slot = old)
            OR EXISTS (SELECT FROM lane WHERE slot = old)
            OR (SELECT coalesce(bool_or(w.slot = old), false) OR count(*) = 50000
                FROM work_between(old) w);
        IF unsent THEN
            RAISE lock_not_available;
        END IF;
        -- Waiting here would queue every producer and relay behind us; a later run tries again.
        EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    END LOOP;
    SELECT greatest(reltuples, 1) INTO rows_then FROM pg_class WHERE oid = part::regclass;
    EXECUTE format('TRUNCATE %I', part);
    RETURN rows_then;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;
COMMENT ON FUNCTION outbox.empty_slot IS
    'Private: truncates a partition in which all is sent. Returns about how many that were.';

-- Deletes single sent messages from before `horizon` that have no slot of their own to go with:
-- of the next `most` messages, slot by slot. Once through a slot, it begins anew after an hour,
-- or at once if asked to be `exact`. Returns how many went, and whether there are more to look at.
CREATE FUNCTION outbox.delete_sent(
    horizon timestamptz, exact boolean, most integer, OUT gone bigint, OUT more boolean
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    oldest timestamptz;
    newest timestamptz;
    walk progress;
    looked bigint;
    last bigint;
    old bigint[];
    deleted bigint;
BEGIN
    gone := 0;
    more := false;
    -- While dead letters come home, a message that is sent by this snapshot may be dead by now.
    IF NOT pg_try_advisory_xact_lock_shared(
            hashtextextended('bring_home', 'ready'::regclass::oid::bigint)) THEN
        RETURN;
    END IF;
    -- Nor while somebody has messages sent again, who in turn waits for this portion.
    IF NOT pg_try_advisory_xact_lock(
            hashtextextended('sent_again', 'ready'::regclass::oid::bigint)) THEN
        RETURN;
    END IF;
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        SELECT created_at INTO oldest FROM message WHERE slot = s ORDER BY id LIMIT 1;
        CONTINUE WHEN oldest IS NULL OR (newest < horizon AND s <> now_slot)
            OR oldest >= horizon - CASE WHEN exact THEN interval '0' ELSE interval '12h' END;
        SELECT * INTO walk FROM progress WHERE name = 'slot_walked_' || s;
        CONTINUE WHEN walk.id = 0 AND walk.at > now() - interval '1 hour' AND NOT exact;
        SELECT count(*), max(id), array_agg(id) FILTER (WHERE created_at < horizon)
        INTO looked, last, old FROM (
            SELECT id, created_at FROM message
            WHERE slot = s AND id > coalesce(walk.id, 0) ORDER BY id LIMIT most) portion;
        DELETE FROM message m WHERE m.slot = s AND m.id = ANY (old)
            AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id AND r.slot = m.slot)
            AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id AND p.slot = m.slot)
            AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id AND l.slot = m.slot);
        GET DIAGNOSTICS deleted = ROW_COUNT;
        gone := gone + deleted;
        most := most - looked;
        -- Ids are in the order of time, or nearly: behind a portion without old ones are none.
        more := looked > 0 AND most = 0 AND old IS NOT NULL;
        INSERT INTO progress AS p (name, at, id)
        VALUES ('slot_walked_' || s, now(), CASE WHEN more THEN last ELSE 0 END)
        ON CONFLICT (name) DO UPDATE SET at = excluded.at, id = excluded.id;
        EXIT WHEN most <= 0;
    END LOOP;
END $$;
COMMENT ON FUNCTION outbox.delete_sent IS
    'Private: deletes a portion of the sent messages that go with no slot.';

-- Forgets a portion of what was sent before that, and says about how much it was: 0 when nothing
-- is left to do. Single rows go only when asked for (`exact`), or when a retention outlives the
-- sixteen slots. One slot a call is emptied, last: its lock ends with the transaction.
CREATE FUNCTION outbox.purge(
    older_than interval, exact boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    endings_until constant timestamptz := horizon - interval '12 hours';
    newest timestamptz;
    done bigint;
    gone bigint := 0;
    more boolean := false;
    unfinished boolean;
BEGIN
    -- Nobody may look for messages without an ending while endings go: it is written down how far
    -- back they can be missed, and a message of before that time is not taken for an unsent one. Up
    -- to half a day later than endings are missed: where the clock was set back while a message
    -- waited, or another server took over, its confirm seems to be from before it was inserted.
    IF pg_try_advisory_xact_lock(
            hashtextextended('outbox.restore_work', 'ready'::regclass::oid::bigint)) THEN
        INSERT INTO progress AS p (name, at)
        VALUES ('receipts_forgotten', now() - greatest(older_than, interval '12 hours'))
        ON CONFLICT (name) DO UPDATE SET at = excluded.at WHERE p.at < excluded.at;
        DELETE FROM receipt WHERE ctid = ANY (ARRAY(
            SELECT r.ctid FROM receipt r WHERE r.sent_at < endings_until
            ORDER BY r.sent_at LIMIT 2000));
        GET DIAGNOSTICS done = ROW_COUNT;
        more := done = 2000;
        DELETE FROM expiry WHERE ctid = ANY (ARRAY(
            SELECT e.ctid FROM expiry e WHERE e.expired_at < endings_until
            ORDER BY e.expired_at LIMIT 10000));
        GET DIAGNOSTICS done = ROW_COUNT;
        more := more OR done = 10000;
    END IF;
    PERFORM forget_dedup();
    SELECT d.gone, d.more INTO gone, unfinished FROM delete_sent(horizon, exact, 10000) d;
    more := more OR unfinished;
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        CONTINUE WHEN newest IS NULL OR newest >= horizon
            OR s = extract(epoch FROM now())::bigint / 43200 % 16;
        more := more OR move_unsent(s::smallint) > 0;
        done := empty_slot(s::smallint);
        gone := gone + done;
        EXIT WHEN more OR done > 0;
    END LOOP;
    RETURN CASE WHEN more THEN greatest(gone, 1) ELSE gone END;
END $$;
COMMENT ON FUNCTION outbox.purge IS
    'Forgets a portion of what was sent before that; about how many messages, 0 at the end.';

-- Retention 0: what was confirmed leaves at once.
CREATE FUNCTION outbox.forget(slots smallint[], ids bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    WITH gone AS (
        DELETE FROM message m USING unnest($1, $2) AS done (slot, id)
        WHERE m.slot = done.slot AND m.id = done.id
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id AND r.slot = m.slot)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id AND p.slot = m.slot)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id AND l.slot = m.slot)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION outbox.forget IS
    'Private: with a retention of 0, what was confirmed leaves at once.';
