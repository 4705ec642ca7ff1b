-- What people do to messages, chosen one by one or by a filter, and the record that stays of it.
--
-- `act` is all that the role of an operator may call. It changes the rows and writes the record in
-- one transaction: nothing is done without a trace, and no trace is left of what was not done.

CREATE TABLE outbox.action (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    who    text NOT NULL,
    login  text NOT NULL DEFAULT session_user,
    action text NOT NULL,
    why    text NOT NULL,
    ids    bigint[] NOT NULL,
    CONSTRAINT who_is_named CHECK (octet_length(who) BETWEEN 1 AND 255),
    CONSTRAINT action_is_known CHECK (
        action IN ('retry', 'discard', 'cancel', 'replay', 'reschedule')),
    CONSTRAINT why_is_short CHECK (octet_length(why) <= 2000)
);
COMMENT ON TABLE outbox.action IS
    'Who did what to which messages, when and why. Rows are added, and never changed or deleted.';
COMMENT ON COLUMN outbox.action.id IS 'Order of the actions.';
COMMENT ON COLUMN outbox.action.at IS 'When, by the clock of this server.';
COMMENT ON COLUMN outbox.action.who IS 'The person, as the program that acted knows them.';
COMMENT ON COLUMN outbox.action.login IS 'The database login of that program.';
COMMENT ON COLUMN outbox.action.action IS 'retry, discard, cancel, replay or reschedule.';
COMMENT ON COLUMN outbox.action.why IS 'What the person gave as the reason; may be empty.';
COMMENT ON COLUMN outbox.action.ids IS 'The ids of the messages that were changed.';

CREATE FUNCTION outbox.keep_actions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'outbox.action is append-only' USING ERRCODE = '42501';
END $$;
COMMENT ON FUNCTION outbox.keep_actions IS 'Private: refuses to change what was recorded.';
CREATE TRIGGER keep_actions BEFORE UPDATE OR DELETE OR TRUNCATE ON outbox.action
    FOR EACH STATEMENT EXECUTE FUNCTION outbox.keep_actions();

-- dead -> pending, as retry() does by message id.
CREATE FUNCTION outbox.retry_rows(rows bigint[]) RETURNS SETOF bigint
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
    WITH revived AS (
        DELETE FROM parked p WHERE p.id = ANY ($1) AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM revived WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, lane FROM revived WHERE lane IS NOT NULL
    ) SELECT id FROM revived
$$;
COMMENT ON FUNCTION outbox.retry_rows IS 'Private: dead -> pending, by id. Returns which.';

-- Gone: what is dead, or else what still waits. A message that a relay holds at this moment may be
-- on the wire already: kept.
CREATE FUNCTION outbox.remove_rows(rows bigint[], dead boolean) RETURNS SETOF bigint
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH unready AS (
        DELETE FROM ready r WHERE NOT $2 AND r.id = ANY ($1) AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p WHERE p.id = ANY ($1) AND (p.state = 'dead') = $2
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l WHERE NOT $2 AND l.id = ANY ($1) RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING m.id
    ) SELECT id FROM gone
$$;
COMMENT ON FUNCTION outbox.remove_rows IS
    'Private: dead -> gone, or else pending or scheduled -> gone, by id. Returns which.';

-- sent -> pending, as replay() does by time.
CREATE FUNCTION outbox.replay_rows(rows bigint[]) RETURNS SETOF bigint
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
    WITH sent AS (
        SELECT m.id, m.slot, m.ordering_key FROM message m
        WHERE m.id = ANY ($1)
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id)
          AND NOT EXISTS (SELECT FROM expiry e WHERE e.id = m.id)
          AND (EXISTS (SELECT FROM receipt r WHERE r.span @> m.id AND m.id = ANY (r.ids))
            OR m.created_at < (SELECT max(p.at) FROM progress p
                                WHERE p.name = 'receipts_forgotten'))
    ), made AS (
        INSERT INTO ready (id, slot) SELECT id, slot FROM sent WHERE ordering_key IS NULL
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, ordering_key FROM sent WHERE ordering_key IS NOT NULL
        ON CONFLICT (id) DO NOTHING RETURNING id
    ) SELECT id FROM made UNION ALL SELECT id FROM queued
$$;
COMMENT ON FUNCTION outbox.replay_rows IS 'Private: sent -> pending, by id. Returns which.';

-- Held until another time: what is scheduled, and what is due, in no lane and held by no relay.
CREATE FUNCTION outbox.reschedule_rows(rows bigint[], at timestamptz) RETURNS SETOF bigint
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
    WITH moved AS (
        UPDATE parked p SET available_at = $2
        WHERE p.id = ANY ($1) AND p.state = 'scheduled' RETURNING p.id
    ), unready AS (
        DELETE FROM ready r
        WHERE r.id = ANY ($1) AND r.lease_until < now() AND r.lane IS NULL
        RETURNING r.id, r.slot, r.attempts, r.last_error
    ), held AS (
        INSERT INTO parked (id, slot, state, available_at, attempts, last_error)
        SELECT id, slot, 'scheduled', $2, attempts, last_error FROM unready RETURNING id
    ) SELECT id FROM moved UNION ALL SELECT id FROM held
$$;
COMMENT ON FUNCTION outbox.reschedule_rows IS
    'Private: pending or scheduled -> scheduled for another time, by id. Returns which.';

CREATE FUNCTION outbox.act(
    action text, rows bigint[], who text, why text DEFAULT '', at timestamptz DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
DECLARE
    changed bigint[];
BEGIN
    IF cardinality(act.rows) > 10000 THEN
        RAISE EXCEPTION 'at most 10000 messages in one action' USING ERRCODE = '22023';
    ELSIF act.action = 'reschedule' AND coalesce(
            act.at < '0001-01-02 00:00+00' OR act.at >= '9999-12-31 00:00+00', true) THEN
        RAISE EXCEPTION 'reschedule needs a time' USING ERRCODE = '22023';
    END IF;
    CASE act.action
    WHEN 'retry' THEN changed := ARRAY(SELECT retry_rows(act.rows));
    WHEN 'discard' THEN changed := ARRAY(SELECT remove_rows(act.rows, true));
    WHEN 'cancel' THEN changed := ARRAY(SELECT remove_rows(act.rows, false));
    WHEN 'replay' THEN changed := ARRAY(SELECT replay_rows(act.rows));
    WHEN 'reschedule' THEN changed := ARRAY(SELECT reschedule_rows(act.rows, act.at));
    ELSE RAISE EXCEPTION 'unknown action: %', act.action USING ERRCODE = '22023';
    END CASE;
    IF cardinality(changed) > 0 THEN
        INSERT INTO action (who, action, why, ids)
        VALUES (act.who, act.action, coalesce(act.why, ''), changed);
    END IF;
    RETURN cardinality(changed);
END $$;
COMMENT ON FUNCTION outbox.act IS
    'Does retry, discard, cancel, replay or reschedule to messages by id, and records it in '
    'outbox.action. Returns how many were changed: those in another state are left alone.';
