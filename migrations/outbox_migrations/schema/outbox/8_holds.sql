-- What is held back on purpose: by queue, by exchange, by task, or all.
--
-- `hold` says what is paused; relays read it every second. A message that a pause is about is set
-- aside by the relay that claims it, into `parked`, and no claim meets it again: its `route` is
-- U+001E and the target of the pause. Once a target is not held any more, relays take such messages
-- from there, by their rank. docs/decisions/0013-holds.md has the reasons.

CREATE TABLE outbox.hold (
    kind    text NOT NULL,
    pattern text NOT NULL,
    target  text PRIMARY KEY
            GENERATED ALWAYS AS (CASE kind WHEN 'all' THEN kind ELSE kind || ':' || pattern END)
            STORED,
    reason  text NOT NULL DEFAULT '',
    since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    until   timestamptz,
    who     text NOT NULL,
    login   text NOT NULL DEFAULT session_user,
    CONSTRAINT kind_is_known CHECK (kind IN ('queue', 'exchange', 'task', 'all')),
    CONSTRAINT pattern_is_short CHECK (octet_length(pattern) BETWEEN 1 AND 255),
    CONSTRAINT reason_is_short CHECK (octet_length(reason) <= 2000),
    CONSTRAINT who_is_named CHECK (octet_length(who) BETWEEN 1 AND 255)
);
COMMENT ON TABLE outbox.hold IS
    'Private: what is paused. Look at outbox.paused; change it with outbox.pause and resume.';
COMMENT ON COLUMN outbox.hold.kind IS 'queue, exchange, task or all.';
COMMENT ON COLUMN outbox.hold.pattern IS
    'The name; * stands for any characters, ? for any one of them.';
COMMENT ON COLUMN outbox.hold.target IS 'Both, as they are written: queue:mail.';
COMMENT ON COLUMN outbox.hold.reason IS 'Why, as the person said.';
COMMENT ON COLUMN outbox.hold.since IS 'Since when, by the clock of this server.';
COMMENT ON COLUMN outbox.hold.until IS 'Until when. Null: until it is resumed.';
COMMENT ON COLUMN outbox.hold.who IS 'The person, as the program that paused it knows them.';
COMMENT ON COLUMN outbox.hold.login IS 'The database login of that program.';

-- What the arguments of pause() and resume() are about; exactly one of them has to be given.
CREATE FUNCTION outbox.held_target(
    queue text, exchange text, task text, everything boolean, OUT kind text, OUT pattern text
) LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF num_nonnulls(queue, exchange, task, nullif(everything, false)) <> 1 THEN
        RAISE EXCEPTION 'give one of queue, exchange, task, or everything => true'
            USING ERRCODE = '22023';
    END IF;
    kind := CASE WHEN queue IS NOT NULL THEN 'queue' WHEN exchange IS NOT NULL THEN 'exchange'
                 WHEN task IS NOT NULL THEN 'task' ELSE 'all' END;
    pattern := coalesce(queue, exchange, task, '*');
    IF octet_length(pattern) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'the name of a % has 1 to 255 bytes', kind USING ERRCODE = '22023';
    END IF;
END $$;
COMMENT ON FUNCTION outbox.held_target IS 'Private: what pause() and resume() are asked about.';

CREATE FUNCTION outbox.pause(
    queue text DEFAULT NULL, exchange text DEFAULT NULL, task text DEFAULT NULL,
    everything boolean DEFAULT false, reason text DEFAULT '', until timestamptz DEFAULT NULL,
    who text DEFAULT session_user
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asked record;
    made text;
BEGIN
    SELECT * INTO asked
    FROM held_target(pause.queue, pause.exchange, pause.task, pause.everything);
    IF pause.until <= clock_timestamp() OR pause.until >= '9999-12-31 00:00+00' THEN
        RAISE EXCEPTION 'until has to be a time to come, before the year 9999'
            USING ERRCODE = '22023';
    END IF;
    IF octet_length(pause.reason) > 2000 THEN
        RAISE EXCEPTION 'a reason has at most 2000 bytes' USING ERRCODE = '22023';
    END IF;
    DELETE FROM hold WHERE until <= clock_timestamp();
    IF (SELECT count(*) FROM hold) >= 1000 THEN
        RAISE EXCEPTION 'more than 1000 pauses: use patterns, such as queue => ''mail.*'''
            USING ERRCODE = '54000';
    END IF;
    INSERT INTO hold AS h (kind, pattern, reason, until, who)
    VALUES (asked.kind, asked.pattern, coalesce(pause.reason, ''), pause.until, pause.who)
    ON CONFLICT (target) DO UPDATE
        SET reason = excluded.reason, until = excluded.until, who = excluded.who,
            login = excluded.login
    RETURNING target INTO made;
    INSERT INTO action (who, action, why, ids)
    VALUES (pause.who, 'pause', left(made || ': ' || coalesce(pause.reason, ''), 500), '{}');
    PERFORM ring();
    RETURN made;
END $$;
COMMENT ON FUNCTION outbox.pause IS
    'Holds messages of a queue, an exchange or a task, or everything, until resumed or a time.';

CREATE FUNCTION outbox.resume(
    queue text DEFAULT NULL, exchange text DEFAULT NULL, task text DEFAULT NULL,
    everything boolean DEFAULT false, reason text DEFAULT '', who text DEFAULT session_user
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asked record;
    ended text[];
BEGIN
    SELECT * INTO asked
    FROM held_target(resume.queue, resume.exchange, resume.task, resume.everything);
    DELETE FROM hold WHERE until <= clock_timestamp();
    WITH gone AS (
        DELETE FROM hold
        WHERE asked.kind = 'all' OR (kind = asked.kind AND pattern = asked.pattern)
        RETURNING target)
    SELECT array_agg(target ORDER BY target) INTO ended FROM gone;
    IF ended IS NOT NULL THEN
        INSERT INTO action (who, action, why, ids) VALUES (resume.who, 'resume', left(
            array_to_string(ended, ', ') || ': ' || coalesce(resume.reason, ''), 500), '{}');
        PERFORM ring();
    END IF;
    RETURN coalesce(cardinality(ended), 0);
END $$;
COMMENT ON FUNCTION outbox.resume IS
    'Ends a pause; everything => true ends all of them. Returns how many were ended.';

-- How many messages wait for each target: exact while the table is small, sampled beyond.
CREATE FUNCTION outbox.held_counts(OUT target text, OUT messages bigint) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
DECLARE
    pages   bigint := pg_relation_size('outbox.parked') / current_setting('block_size')::bigint;
    percent float8 := 100.0 * 1000 / greatest(pages, 1000);
BEGIN
    IF EXISTS (SELECT FROM parked WHERE route IS NOT NULL) THEN
        RETURN QUERY
            SELECT substr(p.route, 2), round(count(*) * 100.0 / percent)::bigint
            FROM parked p TABLESAMPLE SYSTEM (percent) REPEATABLE (0)
            WHERE left(p.route, 1) = chr(30) GROUP BY 1;
    END IF;
END $$;
COMMENT ON FUNCTION outbox.held_counts IS 'Private: how many messages wait for each target.';

CREATE VIEW outbox.paused AS
    SELECT h.target, h.kind, h.pattern, h.reason, h.since, h.until, h.who,
           coalesce(c.messages, 0) AS messages
    FROM outbox.hold h LEFT JOIN outbox.held_counts() c ON c.target = h.target
    WHERE h.until IS NULL OR h.until > now();
COMMENT ON VIEW outbox.paused IS
    'What is paused now: who paused it, when and why, and about how many messages wait for it.';
COMMENT ON COLUMN outbox.paused.target IS 'What is paused, as it is written: queue:mail.';
COMMENT ON COLUMN outbox.paused.kind IS 'queue, exchange, task or all.';
COMMENT ON COLUMN outbox.paused.pattern IS
    'The name; * stands for any characters, ? for any one of them.';
COMMENT ON COLUMN outbox.paused.reason IS 'Why, as the person said.';
COMMENT ON COLUMN outbox.paused.since IS 'Since when, by the clock of this server.';
COMMENT ON COLUMN outbox.paused.until IS 'Until when. Null: until it is resumed.';
COMMENT ON COLUMN outbox.paused.who IS 'The person, as the program that paused it knows them.';
COMMENT ON COLUMN outbox.paused.messages IS
    'How many messages relays have set aside for it; sampled where there are very many.';

-- What waits, by where it goes: of each work table about ten thousand rows, and the rest reckoned
-- from these.
CREATE FUNCTION outbox.routes(
    OUT exchange text, OUT routing_key text, OUT waiting bigint, OUT held bigint,
    OUT held_by text[]
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    block     constant float8 := current_setting('block_size')::float8;
    of_ready  constant float8 := 150 / greatest(pg_relation_size('ready') / block, 150);
    of_parked constant float8 := 150 / greatest(pg_relation_size('parked') / block, 150);
    of_lane   constant float8 := 50 / greatest(pg_relation_size('lane') / block, 50);
BEGIN
    RETURN QUERY
        WITH work AS MATERIALIZED (
            SELECT id, slot, NULL::text AS route, 1 / of_ready AS weight
            FROM ready TABLESAMPLE SYSTEM (100 * of_ready) REPEATABLE (0)
            UNION ALL
            SELECT id, slot, route, 1 / of_parked
            FROM parked TABLESAMPLE SYSTEM (100 * of_parked) REPEATABLE (0)
            WHERE state = 'retry' OR (state = 'scheduled' AND available_at <= now())
            UNION ALL
            SELECT id, slot, NULL, 1 / of_lane FROM lane TABLESAMPLE SYSTEM (100 * of_lane) REPEATABLE (0)
        )
        SELECT m.exchange::text, m.routing_key::text, round(sum(w.weight))::bigint,
               coalesce(round(sum(w.weight) FILTER (WHERE left(w.route, 1) = chr(30))), 0)::bigint,
               coalesce(array_agg(DISTINCT substr(w.route, 2))
                        FILTER (WHERE left(w.route, 1) = chr(30)), '{}')
        FROM work w JOIN message m ON m.id = w.id AND m.slot = w.slot
        GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 1000;
END $$;
COMMENT ON FUNCTION outbox.routes IS 'Private: what waits, by exchange and routing key.';

CREATE VIEW outbox.route AS
    SELECT exchange, routing_key, waiting, held > 0 AS is_held, held, held_by
    FROM outbox.routes();
COMMENT ON VIEW outbox.route IS
    'What waits, by exchange and routing key, and whether it is held; reckoned from a sample.';
COMMENT ON COLUMN outbox.route.exchange IS 'The exchange; empty is the default exchange.';
COMMENT ON COLUMN outbox.route.routing_key IS
    'The routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.route.waiting IS 'About how many messages are pending, those held too.';
COMMENT ON COLUMN outbox.route.is_held IS 'Whether relays have set any of them aside.';
COMMENT ON COLUMN outbox.route.held IS 'About how many of them they have.';
COMMENT ON COLUMN outbox.route.held_by IS 'What holds these, such as queue:mail: see outbox.paused.';
