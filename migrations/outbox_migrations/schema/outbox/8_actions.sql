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
    slots  smallint[],
    CONSTRAINT who_is_named CHECK (octet_length(who) BETWEEN 1 AND 255),
    CONSTRAINT action_is_known CHECK (
        action IN ('retry', 'discard', 'cancel', 'replay', 'reschedule', 'pause', 'resume', 'rate')),
    CONSTRAINT why_is_short CHECK (octet_length(why) <= 2000)
);
COMMENT ON TABLE outbox.action IS
    'Who did what to which messages, when and why. Rows are added, and never changed or deleted.';
COMMENT ON COLUMN outbox.action.id IS 'Order of the actions.';
COMMENT ON COLUMN outbox.action.at IS 'When, by the clock of this server.';
COMMENT ON COLUMN outbox.action.who IS 'The person, as the program that acted knows them.';
COMMENT ON COLUMN outbox.action.login IS 'The database login of that program.';
COMMENT ON COLUMN outbox.action.action IS 'retry, discard, cancel, replay or reschedule, of messages; pause, resume or rate, of what why names.';
COMMENT ON COLUMN outbox.action.why IS 'What the person gave as the reason; may be empty.';
COMMENT ON COLUMN outbox.action.ids IS
    'The ids of the messages that were changed; what came by a new one is named by that.';
COMMENT ON COLUMN outbox.action.slots IS
    'Private: the partitions that they were stored in. Null for what is not about messages.';

CREATE FUNCTION outbox.keep_actions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'outbox.action is append-only' USING ERRCODE = '42501';
END $$;
COMMENT ON FUNCTION outbox.keep_actions IS 'Private: refuses to change what was recorded.';
CREATE TRIGGER keep_actions BEFORE UPDATE OR DELETE OR TRUNCATE ON outbox.action
    FOR EACH STATEMENT EXECUTE FUNCTION outbox.keep_actions();

-- Ids can have been given twice. Where the caller knows the slots of its messages, they tell those
-- apart; without them the state does, as each action is about one: where that leaves two, `acted`
-- refuses.

-- Gone: what is dead, or else what still waits. A message that a relay holds at this moment may be
-- on the wire already: kept.
CREATE FUNCTION outbox.remove_rows(rows bigint[], slots smallint[], dead boolean)
RETURNS SETOF outbox.changed
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT DISTINCT id, slot FROM unnest($1, $2) AS w (id, slot)
    ), unready AS (
        DELETE FROM ready r USING wanted w
        WHERE NOT $3 AND r.id = w.id AND r.slot = coalesce(w.slot, r.slot)
          AND r.lease_until < now() RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w
        WHERE p.id = w.id AND p.slot = coalesce(w.slot, p.slot) AND (p.state = 'dead') = $3
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w
        WHERE NOT $3 AND l.id = w.id AND l.slot = coalesce(w.slot, l.slot)
        RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING m.id, m.slot
    ) SELECT id, slot, id FROM gone
$$;
COMMENT ON FUNCTION outbox.remove_rows IS
    'Private: dead -> gone, or else pending or scheduled -> gone, by id. Returns which.';

-- sent -> pending, as replay() does by time.
CREATE FUNCTION outbox.replay_rows(rows bigint[], slots smallint[] DEFAULT NULL)
RETURNS SETOF outbox.changed
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT m.id, m.slot, m.created_at
        FROM unnest($1, $2) AS w (id, slot)
        JOIN message m ON m.id = w.id AND m.slot = coalesce(w.slot, m.slot)
    ), chosen AS (
        SELECT w.id, w.slot FROM wanted w
        WHERE w.created_at < (SELECT max(p.at) FROM progress p
                               WHERE p.name = 'receipts_forgotten')
           OR EXISTS (SELECT FROM confirms_of(w.id, w.slot))
    ) SELECT sent_again(array_agg(id), array_agg(slot)) FROM chosen
$$;
COMMENT ON FUNCTION outbox.replay_rows IS 'Private: sent -> pending, by id. Returns which.';

-- Held until another time: what is scheduled, and what is due or waits for another attempt, in no
-- lane and held by no relay.
CREATE FUNCTION outbox.reschedule_rows(rows bigint[], slots smallint[], at timestamptz)
RETURNS SETOF outbox.changed
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH moved AS (
        UPDATE parked p SET state = 'scheduled', available_at = $3, route = NULL
        FROM unnest($1, $2) AS w (id, slot)
        WHERE p.id = w.id AND p.slot = coalesce(w.slot, p.slot)
          AND (p.state = 'scheduled' OR p.state = 'retry' AND p.lane IS NULL)
        RETURNING p.id, p.slot
    ), unready AS (
        DELETE FROM ready r USING unnest($1, $2) AS w (id, slot)
        WHERE r.id = w.id AND r.slot = coalesce(w.slot, r.slot)
          AND r.lease_until < now() AND r.lane IS NULL
        RETURNING r.id, r.slot, r.attempts, r.suspicion, r.last_error
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM unready), ARRAY(SELECT slot FROM unready))
        WHERE EXISTS (SELECT FROM unready u, twins_at_work(u.id, u.slot))
    ), placed AS MATERIALIZED (
        SELECT u.*, coalesce(n.number, u.id) AS number
        FROM unready u LEFT JOIN renumbered n ON n.id = u.id AND n.slot = u.slot
    ), held AS (
        INSERT INTO parked (id, slot, state, available_at, attempts, suspicion, last_error)
        SELECT number, slot, 'scheduled', $3, attempts, suspicion, last_error FROM placed
    ) SELECT id, slot, id FROM moved UNION ALL SELECT id, slot, number FROM placed
$$;
COMMENT ON FUNCTION outbox.reschedule_rows IS
    'Private: pending or scheduled -> scheduled for another time, by id. Returns which.';

-- A time that Postgres, Python and the wire can all hold.
CREATE FUNCTION outbox.time_to_hold(at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF coalesce(at < '0001-01-02 00:00+00' OR at >= '9999-12-31 00:00+00', true) THEN
        RAISE EXCEPTION 'reschedule needs a time' USING ERRCODE = '22023';
    END IF;
    RETURN at;
END $$;
COMMENT ON FUNCTION outbox.time_to_hold IS
    'Private: its argument; refuses what is no time to hold a message until.';

CREATE FUNCTION outbox.reschedule(message_id text, at timestamptz) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
    SELECT outbox.ring();
    SELECT count(*) FROM (
        SELECT reschedule_rows(array_agg(m.id), array_agg(m.slot), time_to_hold($2))
        FROM message m WHERE m.message_id = $1) moved
$$;
COMMENT ON FUNCTION outbox.reschedule IS
    'pending or scheduled -> published at that time; now() is at once. Returns how many.';

-- What `act` and the command line do: the change and its record. Returns what was changed.
CREATE FUNCTION outbox.acted(
    action text, rows bigint[], slots smallint[], who text, why text, at timestamptz
) RETURNS SETOF outbox.changed
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
#variable_conflict use_column
DECLARE
    done changed[];
    twice bigint;
BEGIN
    CASE acted.action
    WHEN 'retry' THEN done := ARRAY(SELECT c FROM retry_rows(acted.rows, acted.slots) c);
    WHEN 'discard' THEN done := ARRAY(SELECT c FROM remove_rows(acted.rows, acted.slots, true) c);
    WHEN 'cancel' THEN done := ARRAY(SELECT c FROM remove_rows(acted.rows, acted.slots, false) c);
    WHEN 'replay' THEN done := ARRAY(SELECT c FROM replay_rows(acted.rows, acted.slots) c);
    WHEN 'reschedule' THEN done := ARRAY(
        SELECT c FROM reschedule_rows(acted.rows, acted.slots, time_to_hold(acted.at)) c);
    ELSE RAISE EXCEPTION 'unknown action: %', acted.action USING ERRCODE = '22023';
    END CASE;
    IF acted.slots IS NULL THEN
        SELECT id INTO twice FROM unnest(done) GROUP BY id HAVING count(*) > 1 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'two messages have the id %', twice USING ERRCODE = '22023',
                HINT = 'Name the one that is meant by its slot as well (see outbox.message), or by '
                       'its message id: outbox-relay, outbox.discard, reschedule, replay_message.';
        END IF;
    END IF;
    IF cardinality(done) > 0 THEN
        PERFORM ring();
        INSERT INTO action (who, action, why, ids, slots)
        SELECT acted.who, acted.action, coalesce(acted.why, ''), array_agg(number), array_agg(slot)
        FROM unnest(done);
    END IF;
    RETURN QUERY SELECT * FROM unnest(done);
END $$;
COMMENT ON FUNCTION outbox.acted IS
    'Private: does an action to messages by id and records it. Returns what was changed.';

CREATE FUNCTION outbox.act(
    action text, rows bigint[], who text, why text DEFAULT '', at timestamptz DEFAULT NULL,
    slots smallint[] DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
BEGIN
    IF cardinality(act.rows) > 10000 THEN
        RAISE EXCEPTION 'at most 10000 messages in one action' USING ERRCODE = '22023';
    END IF;
    IF cardinality(act.slots) <> cardinality(act.rows) THEN
        RAISE EXCEPTION 'as many slots as ids, or none' USING ERRCODE = '22023';
    END IF;
    RETURN (SELECT count(*) FROM acted(
        act.action, act.rows, act.slots, act.who, act.why, act.at));
END $$;
COMMENT ON FUNCTION outbox.act IS
    'Does retry, discard, cancel, replay or reschedule to messages by id, and slot where two have '
    'one id; records it in outbox.action. Returns how many: what is in another state is left alone.';
