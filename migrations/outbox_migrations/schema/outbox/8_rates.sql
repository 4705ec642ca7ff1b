-- How many messages a second go to a queue or an exchange, of a task, or in all: a bucket of tokens
-- for each limit, which all relays share.
--
-- A message that a limit is about waits in `parked`, under U+001E and `rate:` and the limit's target,
-- and is claimed from there once a relay has a token for it. docs/decisions/0015-rates.md

CREATE TABLE outbox.bucket (
    kind        text NOT NULL,
    pattern     text NOT NULL,
    target      text PRIMARY KEY
                GENERATED ALWAYS AS (CASE kind WHEN 'all' THEN kind ELSE kind || ':' || pattern END)
                STORED,
    per_second  double precision NOT NULL,
    burst       double precision NOT NULL,
    tokens      double precision NOT NULL,
    refilled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason      text NOT NULL DEFAULT '',
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    who         text NOT NULL,
    login       text NOT NULL DEFAULT session_user,
    CONSTRAINT kind_is_known CHECK (kind IN ('queue', 'exchange', 'task', 'all')),
    CONSTRAINT pattern_is_short CHECK (octet_length(pattern) BETWEEN 1 AND 255),
    CONSTRAINT per_second_is_a_rate CHECK (per_second BETWEEN 0.0001 AND 1000000),
    CONSTRAINT burst_is_some CHECK (burst BETWEEN 1 AND 1000000000),
    CONSTRAINT reason_is_short CHECK (octet_length(reason) <= 2000),
    CONSTRAINT who_is_named CHECK (octet_length(who) BETWEEN 1 AND 255)
) WITH (fillfactor = 20);
COMMENT ON TABLE outbox.bucket IS
    'Private: limits of rates. Look at outbox.rate; change them with outbox.set_rate.';
COMMENT ON COLUMN outbox.bucket.kind IS 'queue, exchange, task or all.';
COMMENT ON COLUMN outbox.bucket.pattern IS
    'The name; * stands for any characters, ? for any one of them.';
COMMENT ON COLUMN outbox.bucket.target IS 'Both, as they are written: queue:mail.';
COMMENT ON COLUMN outbox.bucket.per_second IS 'How many messages a second.';
COMMENT ON COLUMN outbox.bucket.burst IS 'How many at once after a while without any.';
COMMENT ON COLUMN outbox.bucket.tokens IS 'How many there were in it then; below zero, so many were given ahead of their time.';
COMMENT ON COLUMN outbox.bucket.refilled_at IS 'When.';
COMMENT ON COLUMN outbox.bucket.reason IS 'Why, as the person said.';
COMMENT ON COLUMN outbox.bucket.since IS 'Since when there is a limit, by the clock of this server.';
COMMENT ON COLUMN outbox.bucket.who IS 'The person, as the program that set it knows them.';
COMMENT ON COLUMN outbox.bucket.login IS 'The database login of that program.';

CREATE FUNCTION outbox.set_rate(
    per_second double precision, burst double precision DEFAULT NULL,
    queue text DEFAULT NULL, exchange text DEFAULT NULL, task text DEFAULT NULL,
    everything boolean DEFAULT false, reason text DEFAULT '', who text DEFAULT session_user
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asked record;
    most double precision;
    made text;
    words text;
BEGIN
    SELECT * INTO asked
    FROM held_target(set_rate.queue, set_rate.exchange, set_rate.task, set_rate.everything);
    IF set_rate.per_second IS NULL THEN
        DELETE FROM bucket WHERE kind = asked.kind AND pattern = asked.pattern
        RETURNING target INTO made;
        words := 'no limit';
    ELSE
        most := coalesce(set_rate.burst, greatest(1, set_rate.per_second));
        IF set_rate.per_second NOT BETWEEN 0.0001 AND 1000000
                OR most NOT BETWEEN 1 AND 1000000000 THEN
            RAISE EXCEPTION 'per_second is from 0.0001 to 1000000, and burst from 1 on'
                USING ERRCODE = '22023';
        END IF;
        IF octet_length(set_rate.reason) > 2000 THEN
            RAISE EXCEPTION 'a reason has at most 2000 bytes' USING ERRCODE = '22023';
        END IF;
        INSERT INTO bucket AS b (kind, pattern, per_second, burst, tokens, reason, who)
        VALUES (asked.kind, asked.pattern, set_rate.per_second, most, most,
                coalesce(set_rate.reason, ''), set_rate.who)
        ON CONFLICT (target) DO UPDATE
            SET per_second = excluded.per_second, burst = excluded.burst,
                tokens = greatest(least(b.tokens, excluded.burst), -0.2 * excluded.per_second),
                reason = excluded.reason, who = excluded.who, login = excluded.login
        RETURNING target INTO made;
        words := set_rate.per_second || ' a second';
    END IF;
    IF made IS NOT NULL THEN
        INSERT INTO action (who, action, why, ids)
        VALUES (set_rate.who, 'rate',
                left(made || ', ' || words || ': ' || coalesce(set_rate.reason, ''), 500), '{}');
        PERFORM ring();
    END IF;
    RETURN made;
END $$;
COMMENT ON FUNCTION outbox.set_rate IS
    'At most so many messages a second; per_second NULL ends the limit. Returns what it is about.';

-- As many tokens of each bucket as are wanted and there, or will be within a fifth of a second: the
-- relay uses each at its time, so that a full bucket loses none however seldom it is asked. A bucket
-- that somebody has locked has none: its messages wait, and nobody waits for the lock.
CREATE FUNCTION outbox.take_tokens(
    targets text[], wanted bigint[],
    OUT target text, OUT granted bigint, OUT there double precision
) RETURNS SETOF record LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    WITH clock AS MATERIALIZED (
        SELECT clock_timestamp() AS at
    ), locked AS MATERIALIZED (
        SELECT b.target, asked.wanted, clock.at, b.per_second, least(b.burst, b.tokens
                   + b.per_second * greatest(0, extract(epoch FROM clock.at - b.refilled_at)))
                   AS there
        FROM unnest($1, $2) AS asked (target, wanted)
        JOIN bucket b ON b.target = asked.target CROSS JOIN clock
        FOR UPDATE OF b SKIP LOCKED
    ), given AS MATERIALIZED (
        SELECT l.target, l.at, l.there,
               greatest(0, least(l.wanted, floor(l.there + 0.2 * l.per_second))) AS tokens
        FROM locked l
    )
    UPDATE bucket b
    SET tokens = g.there - g.tokens, refilled_at = g.at
    FROM given g
    WHERE b.target = g.target AND (g.tokens > 0 OR b.refilled_at > g.at)
    RETURNING b.target, g.tokens::bigint, g.there
$$;
COMMENT ON FUNCTION outbox.take_tokens IS 'Private: tokens for messages that limits are about, and how many there were before.';

CREATE VIEW outbox.rate AS
    SELECT b.target, b.kind, b.pattern, b.per_second, b.burst, b.reason, b.since, b.who,
           coalesce(c.messages, 0) AS messages
    FROM outbox.bucket b LEFT JOIN outbox.held_counts() c ON c.target = 'rate:' || b.target;
COMMENT ON VIEW outbox.rate IS
    'How many messages a second may go where: who set it and why, and about how many wait for it.';
COMMENT ON COLUMN outbox.rate.target IS 'What it is about, as it is written: queue:mail.';
COMMENT ON COLUMN outbox.rate.kind IS 'queue, exchange, task or all.';
COMMENT ON COLUMN outbox.rate.pattern IS
    'The name; * stands for any characters, ? for any one of them.';
COMMENT ON COLUMN outbox.rate.per_second IS 'How many messages a second.';
COMMENT ON COLUMN outbox.rate.burst IS 'How many at once after a while without any.';
COMMENT ON COLUMN outbox.rate.reason IS 'Why, as the person said.';
COMMENT ON COLUMN outbox.rate.since IS 'Since when there is a limit, by the clock of this server.';
COMMENT ON COLUMN outbox.rate.who IS 'The person, as the program that set it knows them.';
COMMENT ON COLUMN outbox.rate.messages IS
    'How many messages wait for their turn; sampled where there are very many.';
