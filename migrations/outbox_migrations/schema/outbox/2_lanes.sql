-- Order within a key: messages with an ordering key wait in lanes, and leave them one at a time.
--
-- At most one message of a key is among the work (`ready`, or `parked` for another attempt); all
-- others of that key are in `lane`. Only `claim_lanes`, which one relay at a time can run, takes
-- the next one out. Every way the work can lose a message (confirmed, given up, discarded,
-- deleted by hand) leaves word of its key in `lane_news`: no lane is ever forgotten, and none
-- looked at without need. docs/decisions/0006-lanes.md has the reasons.

CREATE TABLE outbox.lane (
    id   bigint PRIMARY KEY,
    slot smallint NOT NULL,
    key  text NOT NULL,
    CONSTRAINT ordering_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 200)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX lane_key ON outbox.lane (key, id);
CREATE INDEX lane_slot ON outbox.lane (slot, id);
COMMENT ON TABLE outbox.lane IS
    'Private: messages that wait for others with the same ordering key.';
COMMENT ON COLUMN outbox.lane.id IS 'The id of the message.';
COMMENT ON COLUMN outbox.lane.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN outbox.lane.key IS 'The ordering key.';

CREATE TABLE outbox.lane_news (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE outbox.lane_news IS
    'Private: ordering keys whose next message may have to be taken out of its lane.';
COMMENT ON COLUMN outbox.lane_news.id IS 'Order of the news.';
COMMENT ON COLUMN outbox.lane_news.key IS 'The ordering key that there is news of.';

CREATE FUNCTION outbox.joined_lane() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
BEGIN
    IF is_replicating() THEN RETURN NULL; END IF;
    INSERT INTO lane_news (key) SELECT DISTINCT key FROM joined;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION outbox.joined_lane IS
    'Private: leaves word of the keys of messages that joined a lane.';

CREATE TRIGGER joined_lane AFTER INSERT ON outbox.lane
    REFERENCING NEW TABLE AS joined
    FOR EACH STATEMENT EXECUTE FUNCTION outbox.joined_lane();
ALTER TABLE outbox.lane ENABLE ALWAYS TRIGGER joined_lane;

-- Also where the message only moved, from one attempt to the wait for the next: then the news
-- finds its lane still taken, and is forgotten.
CREATE FUNCTION outbox.left_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
BEGIN
    IF is_replicating() THEN RETURN NULL; END IF;
    INSERT INTO lane_news (key) VALUES (OLD.lane);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION outbox.left_work IS
    'Private: leaves word of the key of a message that has left the work.';

CREATE TRIGGER left_work AFTER DELETE ON outbox.ready
    FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION outbox.left_work();
CREATE TRIGGER left_work AFTER DELETE ON outbox.parked
    FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION outbox.left_work();
ALTER TABLE outbox.ready ENABLE ALWAYS TRIGGER left_work;
ALTER TABLE outbox.parked ENABLE ALWAYS TRIGGER left_work;

-- Takes the next message out of each lane there is news of, and leases it to the claim
-- `claim_id`. Looks at `max_news` news above `above`, or fewer; `news` are those it looked at. News
-- of a lane whose first message somebody holds (about to cancel it, say), or whose id another message
-- has in `ready`, is kept for another time.
CREATE FUNCTION outbox.claim_lanes(
    above bigint, max_news integer, claim_id bigint, lease_seconds double precision,
    OUT news bigint[], OUT ids bigint[], OUT slots smallint[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
BEGIN
    PERFORM FROM lane_news n WHERE n.id > above LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    -- Whoever holds this lock is the one that takes messages out of lanes. It belongs to this
    -- table of this database, and ends with the transaction.
    IF NOT pg_try_advisory_xact_lock(
            hashtextextended('outbox.claim_lanes', 'lane'::regclass::oid::bigint)) THEN
        RETURN;
    END IF;
    -- A statement of its own, begun behind the lock: it sees all that was taken out before.
    WITH heard AS MATERIALIZED (
        SELECT n.id, n.key FROM lane_news n WHERE n.id > above ORDER BY n.id LIMIT max_news
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
               AND NOT EXISTS (
                SELECT FROM ready r WHERE r.id = l.id AND r.slot <> l.slot OFFSET 0)
            FOR UPDATE SKIP LOCKED))
        RETURNING id, slot, key
    ), held AS MATERIALIZED (
        SELECT head.key FROM head WHERE head.id <> ALL (ARRAY(SELECT gone.id FROM gone))
    ), done AS (
        DELETE FROM lane_news WHERE id = ANY (ARRAY(
            SELECT heard.id FROM heard WHERE heard.key <> ALL (ARRAY(SELECT held.key FROM held))))
    ), made AS (
        INSERT INTO ready (id, slot, lane, claim_id, lease_until)
        SELECT id, slot, key, claim_id, now() + lease_seconds * interval '1 second' FROM gone
        ON CONFLICT (id) DO NOTHING RETURNING id, slot
    )
    SELECT (SELECT array_agg(heard.id) FROM heard), array_agg(made.id), array_agg(made.slot)
    INTO news, ids, slots FROM made;
END $$;
COMMENT ON FUNCTION outbox.claim_lanes IS
    'Private: leases the next message of each lane there is news of.';
