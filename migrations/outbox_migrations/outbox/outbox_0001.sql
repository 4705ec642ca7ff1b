-- Made by `make baseline` from schema/outbox/: change it there.

-- The tables: insert-only messages, and narrow work rows beside them.
--
-- `message` is what goes on the wire and is never updated. `ready` and `parked` hold the work
-- still to be done, a few dozen bytes a row, so that claims stay cheap whatever the payload, the
-- backlog or the age of the oldest transaction. docs/decisions/0001-physical-design.md has the
-- measurements.

COMMENT ON SCHEMA outbox IS
    'Transactional outbox for Celery: look at pending, scheduled, sent, dead, expired, stats.';

-- What a message may hold, column by column. Domains, because what bounds a domain is planned once
-- in a session; every INSERT would read and plan the checks of a table anew, a third of its time.
-- AMQP carries these as short strings: one length byte.
CREATE DOMAIN outbox.message_id AS text
    CONSTRAINT message_id_is_short CHECK (octet_length(VALUE) BETWEEN 1 AND 255);
CREATE DOMAIN outbox.task AS text
    CONSTRAINT task_is_named CHECK (octet_length(VALUE) BETWEEN 1 AND 1000);
CREATE DOMAIN outbox.exchange AS text
    CONSTRAINT exchange_is_short CHECK (octet_length(VALUE) <= 255);
CREATE DOMAIN outbox.routing_key AS text
    CONSTRAINT routing_key_is_short CHECK (octet_length(VALUE) <= 255);
CREATE DOMAIN outbox.content_type AS text
    CONSTRAINT content_type_is_short CHECK (octet_length(VALUE) BETWEEN 1 AND 255);
CREATE DOMAIN outbox.content_encoding AS text
    CONSTRAINT content_encoding_is_short CHECK (octet_length(VALUE) BETWEEN 1 AND 255);
-- Headers must fit one frame, and a relay holds a batch of messages in memory.
CREATE DOMAIN outbox.headers AS json
    CONSTRAINT headers_are_an_object CHECK (json_typeof(VALUE) = 'object')
    CONSTRAINT headers_fit_a_frame CHECK (octet_length(VALUE::text) <= 131072);
CREATE DOMAIN outbox.properties AS json
    CONSTRAINT properties_are_an_object CHECK (json_typeof(VALUE) = 'object')
    CONSTRAINT properties_fit_a_frame CHECK (octet_length(VALUE::text) <= 131072);
CREATE DOMAIN outbox.declare AS json
    CONSTRAINT declare_is_an_array CHECK (json_typeof(VALUE) = 'array')
    CONSTRAINT declare_is_short CHECK (octet_length(VALUE::text) <= 131072);
-- The default max_message_size of RabbitMQ 3.
CREATE DOMAIN outbox.body AS bytea
    CONSTRAINT body_fits_a_broker CHECK (octet_length(VALUE) <= 134217728);
-- What `lane` and `dedup` would refuse later is refused here, where somebody hears of it.
CREATE DOMAIN outbox.ordering_key AS text
    CONSTRAINT ordering_key_is_short CHECK (octet_length(VALUE) BETWEEN 1 AND 200);
CREATE DOMAIN outbox.dedup_key AS text
    CONSTRAINT dedup_key_is_short CHECK (octet_length(VALUE) BETWEEN 1 AND 200);
-- Python's datetime can show these in every time zone, and every Postgres can subtract them.
CREATE DOMAIN outbox.available_at AS timestamptz
    CONSTRAINT available_at_is_a_time CHECK (
        VALUE >= '0001-01-02 00:00+00' AND VALUE < '9999-12-31 00:00+00');
CREATE DOMAIN outbox.expires_at AS timestamptz
    CONSTRAINT expires_at_is_a_time CHECK (
        VALUE >= '0001-01-02 00:00+00' AND VALUE < '9999-12-31 00:00+00');
CREATE DOMAIN outbox.created_at AS timestamptz
    CONSTRAINT created_at_is_a_time CHECK (
        VALUE >= '0001-01-02 00:00+00' AND VALUE < '9999-12-31 00:00+00');

CREATE TABLE outbox.message (
    id               bigint GENERATED ALWAYS AS IDENTITY,
    slot             smallint NOT NULL
                     DEFAULT (extract(epoch FROM now())::bigint / 43200 % 16)::smallint,
    message_id       outbox.message_id NOT NULL,
    task             outbox.task NOT NULL,
    exchange         outbox.exchange NOT NULL DEFAULT '',
    routing_key      outbox.routing_key NOT NULL DEFAULT '',
    headers          outbox.headers NOT NULL DEFAULT '{}',
    properties       outbox.properties NOT NULL DEFAULT '{}',
    body             outbox.body NOT NULL,
    content_type     outbox.content_type NOT NULL,
    content_encoding outbox.content_encoding NOT NULL,
    mandatory        boolean NOT NULL DEFAULT true,
    declare          outbox.declare NOT NULL DEFAULT '[]',
    available_at     outbox.available_at,
    expires_at       outbox.expires_at,
    created_at       outbox.created_at NOT NULL DEFAULT clock_timestamp(),
    ordering_key     outbox.ordering_key,
    dedup_key        outbox.dedup_key,
    PRIMARY KEY (id, slot)
) PARTITION BY LIST (slot);
CREATE INDEX message_message_id ON outbox.message (message_id);
COMMENT ON TABLE outbox.message IS
    'Every message kept, exactly as it will go or went on the wire. Insert-only.';
COMMENT ON COLUMN outbox.message.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.message.slot IS
    'Private: the half-day partition the message is stored in.';
COMMENT ON COLUMN outbox.message.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.message.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.message.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.message.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.message.headers IS
    'Application headers. json, not jsonb: the text is kept to the letter.';
COMMENT ON COLUMN outbox.message.properties IS
    'The other AMQP properties: delivery_mode, priority, correlation_id, expiration ...';
COMMENT ON COLUMN outbox.message.body IS 'The serialised (and perhaps compressed) body.';
COMMENT ON COLUMN outbox.message.content_type IS 'MIME type of the body, such as application/json.';
COMMENT ON COLUMN outbox.message.content_encoding IS 'Encoding of the body, such as utf-8.';
COMMENT ON COLUMN outbox.message.mandatory IS
    'Whether reaching no queue is a failure. False for fanout.';
COMMENT ON COLUMN outbox.message.declare IS
    'Queues and exchanges Celery would have declared before publishing.';
COMMENT ON COLUMN outbox.message.available_at IS
    'Not published before this time (the eta). Null: at once.';
COMMENT ON COLUMN outbox.message.expires_at IS
    'Not published after this time. Null: never expires.';
COMMENT ON COLUMN outbox.message.created_at IS
    'When the row was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.message.ordering_key IS
    'Messages with the same key are published one after another. Null: in no order.';
COMMENT ON COLUMN outbox.message.dedup_key IS
    'Stored only while no other message with this key was pending. Null: always stored.';

-- Sixteen fixed slots of half a day. Retention empties a slot with TRUNCATE, which locks that
-- slot alone; creating and dropping partitions at run time would lock the parent under the
-- producers.
CREATE TABLE outbox.message_0 PARTITION OF outbox.message FOR VALUES IN (0);
CREATE TABLE outbox.message_1 PARTITION OF outbox.message FOR VALUES IN (1);
CREATE TABLE outbox.message_2 PARTITION OF outbox.message FOR VALUES IN (2);
CREATE TABLE outbox.message_3 PARTITION OF outbox.message FOR VALUES IN (3);
CREATE TABLE outbox.message_4 PARTITION OF outbox.message FOR VALUES IN (4);
CREATE TABLE outbox.message_5 PARTITION OF outbox.message FOR VALUES IN (5);
CREATE TABLE outbox.message_6 PARTITION OF outbox.message FOR VALUES IN (6);
CREATE TABLE outbox.message_7 PARTITION OF outbox.message FOR VALUES IN (7);
CREATE TABLE outbox.message_8 PARTITION OF outbox.message FOR VALUES IN (8);
CREATE TABLE outbox.message_9 PARTITION OF outbox.message FOR VALUES IN (9);
CREATE TABLE outbox.message_10 PARTITION OF outbox.message FOR VALUES IN (10);
CREATE TABLE outbox.message_11 PARTITION OF outbox.message FOR VALUES IN (11);
CREATE TABLE outbox.message_12 PARTITION OF outbox.message FOR VALUES IN (12);
CREATE TABLE outbox.message_13 PARTITION OF outbox.message FOR VALUES IN (13);
CREATE TABLE outbox.message_14 PARTITION OF outbox.message FOR VALUES IN (14);
CREATE TABLE outbox.message_15 PARTITION OF outbox.message FOR VALUES IN (15);

-- Half-empty pages keep the lease a heap-only update: no index entry, a short WAL record.
CREATE TABLE outbox.ready (
    id          bigint PRIMARY KEY,
    slot        smallint NOT NULL,
    attempts    smallint NOT NULL DEFAULT 0,
    suspicion   smallint NOT NULL DEFAULT 0,
    claim_id    bigint,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    last_error  text,
    lane        text
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX ready_lane ON outbox.ready (lane) WHERE lane IS NOT NULL;
COMMENT ON TABLE outbox.ready IS
    'Private: messages to publish now; a row lives until its message is confirmed.';
COMMENT ON COLUMN outbox.ready.id IS 'The id of the message.';
COMMENT ON COLUMN outbox.ready.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN outbox.ready.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.ready.suspicion IS
    'How often a channel died with this message on it; such rows are published alone.';
COMMENT ON COLUMN outbox.ready.claim_id IS
    'The claim that holds the row; failures of an older claim are ignored.';
COMMENT ON COLUMN outbox.ready.lease_until IS
    'When another relay may claim the row, by the clock of this server.';
COMMENT ON COLUMN outbox.ready.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN outbox.ready.lane IS
    'The ordering key, of a message that was taken out of its lane.';

CREATE TABLE outbox.parked (
    id           bigint PRIMARY KEY,
    slot         smallint NOT NULL,
    state        text NOT NULL CHECK (state IN ('scheduled', 'retry', 'dead')),
    available_at timestamptz NOT NULL,
    attempts     smallint NOT NULL DEFAULT 0,
    suspicion    smallint NOT NULL DEFAULT 0,
    last_error   text,
    lane         text,
    route        text,
    rank         smallint NOT NULL DEFAULT 0
);
CREATE INDEX parked_due ON outbox.parked (available_at) WHERE state <> 'dead';
CREATE INDEX parked_lane ON outbox.parked (lane) WHERE lane IS NOT NULL AND state = 'retry';
-- What waits for a route or a hold is let go by its rank, and now and then by its age.
CREATE INDEX parked_route ON outbox.parked (route, id) WHERE route IS NOT NULL;
CREATE INDEX parked_rank ON outbox.parked (route, rank, id) WHERE route IS NOT NULL;
-- One for each state, instead of one for all: then state and order are settled by the choice of
-- the index. NOT IN, because without statistics the planner takes `=` for one row in 200, and
-- that many rows for so few that it reads them all; what it excludes, it takes for nearly none.
-- `attempts` is in one index alone, so that asking for it asks for that index.
CREATE INDEX parked_retry ON outbox.parked (id) WHERE state NOT IN ('scheduled', 'dead');
CREATE INDEX parked_dead ON outbox.parked (id) WHERE state NOT IN ('scheduled', 'retry');
CREATE INDEX parked_scheduled ON outbox.parked (id, available_at)
    WHERE state NOT IN ('retry', 'dead');
CREATE INDEX parked_scheduled_at ON outbox.parked (available_at, id, attempts)
    WHERE state NOT IN ('retry', 'dead');
-- What nobody wants to wait: neither paused (U+001E) nor limited, though perhaps without room in its
-- queue. Compared with a number, so that the planner takes it for rare, and for what this index is
-- for, whatever the statistics say; `suspicion` is here for the same reason as `attempts` there.
CREATE INDEX parked_late ON outbox.parked (id, suspicion)
    WHERE CASE WHEN state = 'retry' AND (route IS NULL OR left(route, 1) <> chr(30)
                   OR left(route, 7) = chr(30) || 'depth:') THEN 1 END = 1;
-- By which retention finds what has to leave a slot before it is emptied.
CREATE INDEX parked_slot ON outbox.parked (slot, id);
COMMENT ON TABLE outbox.parked IS
    'Private: messages that wait for their time (scheduled, retry) or for a person (dead).';
COMMENT ON COLUMN outbox.parked.id IS 'The id of the message.';
COMMENT ON COLUMN outbox.parked.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN outbox.parked.state IS
    'scheduled (until its eta), retry (until its next attempt) or dead.';
COMMENT ON COLUMN outbox.parked.available_at IS
    'When it becomes ready again, or since when it is dead.';
COMMENT ON COLUMN outbox.parked.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.parked.suspicion IS 'How often a channel died with this message on it.';
COMMENT ON COLUMN outbox.parked.last_error IS 'Why the broker refused it last.';
COMMENT ON COLUMN outbox.parked.lane IS 'The ordering key, if the message has one.';
COMMENT ON COLUMN outbox.parked.route IS
    'What it waits for: that its route takes messages again (exchange, U+001F, key), or that it is '
    'not held any more (U+001E, target; see hold).';
COMMENT ON COLUMN outbox.parked.rank IS
    'Lower ones of a route are let go first: by the priority, as the broker reads it.';

-- One row per settled batch and slot, which is nearly always the same: a sent time for every message
-- at eight bytes each. An id alone does not name a message: it can have been given twice (the
-- sequence was restarted, an old snapshot was put back). A message is moved to another slot only
-- while it waits, and has a new receipt after that.
CREATE TABLE outbox.receipt (
    sent_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    slot       smallint NOT NULL,
    span       int8range NOT NULL,
    ids        bigint[] NOT NULL,
    claimed_at timestamptz
);
-- Unique, so that it can tell subscribers of logical replication which receipt was forgotten.
CREATE UNIQUE INDEX receipt_sent_at ON outbox.receipt (sent_at, span, slot);
ALTER TABLE outbox.receipt REPLICA IDENTITY USING INDEX receipt_sent_at;
CREATE INDEX receipt_span ON outbox.receipt USING gist (span);
CREATE INDEX receipt_highest ON outbox.receipt (upper(span));
-- Not compressed: of what Postgres does for a message, that was a twelfth.
ALTER TABLE outbox.receipt ALTER COLUMN ids SET STORAGE EXTERNAL;
COMMENT ON TABLE outbox.receipt IS 'Private: when each batch was confirmed.';
COMMENT ON COLUMN outbox.receipt.sent_at IS 'When the batch was settled.';
COMMENT ON COLUMN outbox.receipt.slot IS 'The partition its messages are stored in.';
COMMENT ON COLUMN outbox.receipt.span IS 'From the lowest to the highest id of the batch.';
COMMENT ON COLUMN outbox.receipt.ids IS 'The ids of the messages that were confirmed.';
COMMENT ON COLUMN outbox.receipt.claimed_at IS
    'When a relay claimed them, or last renewed that claim. Null: not known any more.';

-- The other ending: what expired before a worker could have it. Its own table, because it is
-- rare, and because settling must not pay for it.
CREATE TABLE outbox.expiry (
    id         bigint NOT NULL,
    slot       smallint NOT NULL,
    expired_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts   smallint NOT NULL DEFAULT 0,
    last_error text,
    PRIMARY KEY (id, slot)
);
CREATE INDEX expiry_expired_at ON outbox.expiry (expired_at);
COMMENT ON TABLE outbox.expiry IS 'Private: messages that expired before they could be of use.';
COMMENT ON COLUMN outbox.expiry.id IS 'The id of the message.';
COMMENT ON COLUMN outbox.expiry.slot IS 'The partition the message is stored in.';
COMMENT ON COLUMN outbox.expiry.expired_at IS 'When the relay noticed.';
COMMENT ON COLUMN outbox.expiry.attempts IS
    'How often the broker had refused it; outages do not count.';
COMMENT ON COLUMN outbox.expiry.last_error IS 'What was done about it.';

-- How far chores have come. No row is needed: what is missing here is begun anew.
CREATE TABLE outbox.progress (
    name text PRIMARY KEY,
    at   timestamptz,
    id   bigint
);
COMMENT ON TABLE outbox.progress IS 'Private: how far the chores of retention have come.';
COMMENT ON COLUMN outbox.progress.name IS
    'receipts_forgotten (endings of messages from before that time may be gone), '
    'work_checked (up to that id) or '
    'slot_walked_N (single rows of that slot, up to that id; 0: all of them, at that time).';
COMMENT ON COLUMN outbox.progress.at IS 'The time, of a chore that goes by time.';
COMMENT ON COLUMN outbox.progress.id IS 'The id, of a chore that goes by id.';

-- A subscriber of logical replication gets the work rows as well: triggers must not make them
-- again. Everywhere else they run ALWAYS, whatever session_replication_role says: without them a
-- message would have no work.
CREATE FUNCTION outbox.is_replicating() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN current_setting('session_replication_role') = 'replica' AND EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_subscription(NULL) s
        WHERE s.pid = pg_catalog.pg_backend_pid());
END $$;
COMMENT ON FUNCTION outbox.is_replicating IS
    'Private: whether this session applies the changes of another server.';

-- The doorbell. A relay that sleeps holds the lock `bell`, alone; whoever makes work tries to share
-- it until the transaction ends. Where that succeeds no relay sleeps, and none can go to sleep before
-- the work is there to be seen; where it fails, the sleeper is notified at the commit. Of several
-- idle relays the one that holds the lock `watch` sleeps. docs/decisions/0011-doorbell.md
CREATE FUNCTION outbox.bell(OUT bell bigint, OUT watch bigint, OUT channel text)
LANGUAGE sql STABLE AS $$
    SELECT hashtextextended('outbox.bell', 'outbox.ready'::regclass::oid::bigint),
           hashtextextended('outbox.watch', 'outbox.ready'::regclass::oid::bigint),
           'outbox_bell_' || 'outbox.ready'::regclass::oid
$$;
COMMENT ON FUNCTION outbox.bell IS
    'Private: the advisory locks and the channel by which a sleeping relay is woken.';

CREATE FUNCTION outbox.ring() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock_shared(
            hashtextextended('outbox.bell', 'outbox.ready'::regclass::oid::bigint)) THEN
        PERFORM pg_notify('outbox_bell_' || 'outbox.ready'::regclass::oid, '');
    END IF;
END $$;
COMMENT ON FUNCTION outbox.ring IS
    'Private: wakes the relay that sleeps, if any does, when this transaction commits.';

-- Whoever inserts a message makes its work row, with no right beyond INSERT on `message`. What
-- nearly every message needs comes first.
CREATE FUNCTION outbox.make_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
DECLARE
    claimed record;
BEGIN
    -- Looked at here as well: to call a function that says no is a twentieth of an INSERT.
    IF current_setting('session_replication_role') = 'replica' AND is_replicating() THEN
        RETURN NULL;
    END IF;
    PERFORM ring();
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
COMMENT ON FUNCTION outbox.make_work IS 'Private: makes a work row of each message inserted.';

CREATE TRIGGER make_work AFTER INSERT ON outbox.message
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION outbox.make_work();
ALTER TABLE outbox.message ENABLE ALWAYS TRIGGER make_work;

-- What the relay asks before it trusts this schema.
CREATE FUNCTION outbox.version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';
COMMENT ON FUNCTION outbox.version IS 'The version of this schema that relays ask for.';

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

-- Ids given twice: how each of two messages with one id comes to work of its own.
--
-- A sequence that was restarted, or an old snapshot that was put back, gives ids again; in another
-- slot than before, or the INSERT would fail. So a message is named by id and slot, everywhere. Work
-- is found by id alone where that is fast, so that only one message of an id can be among it: whoever
-- makes work of an older message gives it a new id where its own is taken.

-- A message as somebody named it, and the id it has now.
CREATE TYPE outbox.changed AS (id bigint, slot smallint, number bigint);
COMMENT ON TYPE outbox.changed IS 'Private: a message that was changed, and its id since.';

-- Other messages with this id that have work. Plain enough that the planner puts it into the query
-- that asks; OFFSET 0 keeps it from beginning with all the work there is.
CREATE FUNCTION outbox.twins_at_work(id bigint, slot smallint) RETURNS TABLE (twin smallint)
LANGUAGE sql STABLE AS $$
    SELECT w.slot FROM (
        SELECT r.slot FROM outbox.ready r WHERE r.id = $1 AND r.slot <> $2
        UNION ALL SELECT p.slot FROM outbox.parked p WHERE p.id = $1 AND p.slot <> $2
        UNION ALL SELECT l.slot FROM outbox.lane l WHERE l.id = $1 AND l.slot <> $2) w
    OFFSET 0
$$;
COMMENT ON FUNCTION outbox.twins_at_work IS
    'Private: the slots of other messages with this id that are among the work.';

-- Those of these messages whose id another one has among the work, or that come after another one
-- here, get a new id. Returns these, each with its `number` now. To plan it takes long: not to be
-- asked where nothing is taken.
CREATE FUNCTION outbox.renumber(ids bigint[], slots smallint[]) RETURNS SETOF outbox.changed
LANGUAGE sql SECURITY DEFINER ROWS 1 SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH asked AS (
        SELECT DISTINCT a.id, a.slot FROM unnest($1, $2) AS a (id, slot)
    ), taken AS MATERIALIZED (
        SELECT a.id, a.slot
        FROM (SELECT *, row_number() OVER (PARTITION BY asked.id ORDER BY asked.slot) AS place
                FROM asked) a
        WHERE a.place > 1 OR EXISTS (SELECT FROM twins_at_work(a.id, a.slot))
    ), renumbered AS (
        UPDATE message m SET id = DEFAULT FROM taken t WHERE m.id = t.id AND m.slot = t.slot
        RETURNING t.id AS was, m.slot, m.id AS number, m.message_id, m.dedup_key
    ), known AS (
        UPDATE dedup d SET id = r.number FROM renumbered r
        WHERE d.key = r.dedup_key AND d.message_id = r.message_id AND d.id = r.was
    )
    SELECT r.was, r.slot, r.number FROM renumbered r
$$;
COMMENT ON FUNCTION outbox.renumber IS
    'Private: a new id for each of these messages whose id another one has among the work.';

-- The views people read. But for stats, they are disjoint and together every message kept.
--
-- Each is cheap on any backlog: it reads about as many rows as it shows. A person looks during an
-- incident, when a million rows wait and statistics are old, so no plan may depend on statistics:
-- every view begins with the narrow work rows, in an index's order, and looks each message up.
-- docs/decisions/0008-views-without-statistics.md has the reasons and what was measured.

-- A comparison with an expensive value is cheap only in an index, which computes it once; a plan
-- that reads a table from end to end computes it for every row, and is not chosen.
CREATE FUNCTION outbox.by_index(value anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE COST 2000 AS 'BEGIN RETURN value; END';
COMMENT ON FUNCTION outbox.by_index IS
    'Private: its argument, at a price that only an index look-up pays just once.';

-- Arguments as short text. Some escapes are legal in json and impossible in text: NUL, and half a
-- surrogate pair. One such row must not make a view unreadable, so its arguments are not shown.
CREATE FUNCTION outbox.short_repr(headers json, key text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
        THEN left(headers ->> key, 200) END
$$;
COMMENT ON FUNCTION outbox.short_repr IS
    'Private: positional or named arguments as Celery renders them, at most 200 characters.';

-- How each view finds the message of a work row: an outer join can only begin with the work row;
-- but a condition on message_id, the one column shown as it is, makes it an inner join, which
-- begins with the message that has that id. All other columns are wrapped, so that a condition on
-- them does not. Compared with arrays of one, because neither a hash nor a merge join can do
-- that: each would read all.

-- The confirms of a message: what tells whether and when it was sent, wherever that is asked. Plain
-- enough that the planner puts it into the query that asks. The view `sent` has it written out: a
-- function would read receipts with the rights of whoever looks.
CREATE FUNCTION outbox.confirms_of(id bigint, slot smallint)
RETURNS TABLE (sent_at timestamptz, claimed_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT r.sent_at, r.claimed_at FROM outbox.receipt r
    WHERE r.span @> $1 AND $1 = ANY (r.ids) AND r.slot = $2
$$;
COMMENT ON FUNCTION outbox.confirms_of IS
    'Private: each confirm of this message, and of no other to which its id was given.';

-- A message that has neither work nor an ending: the triggers were off when it was inserted, or its
-- work was deleted by hand. It was never confirmed, so it is not sent; restore_work() gives it its
-- work back. To find all of them takes a look at all that is kept: these are of the newest hundred.
CREATE FUNCTION outbox.workless(OUT id bigint, OUT slot smallint) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER ROWS 1 SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
AS $$
    SELECT m.id, m.slot
    FROM (SELECT id, slot, created_at FROM message ORDER BY id DESC LIMIT 100) m
    LEFT JOIN LATERAL (
        SELECT true AS found FROM ready r WHERE r.id = m.id AND r.slot = m.slot
        UNION ALL SELECT true FROM parked p WHERE p.id = m.id AND p.slot = m.slot
        UNION ALL SELECT true FROM lane l WHERE l.id = m.id AND l.slot = m.slot
        UNION ALL SELECT true FROM expiry e WHERE e.id = m.id AND e.slot = m.slot
        UNION ALL SELECT true FROM confirms_of(m.id, m.slot)
        LIMIT 1) known ON true
    WHERE known.found IS NULL AND m.created_at >= (
        SELECT coalesce(max(p.at), '-infinity') FROM progress p
         WHERE p.name = 'receipts_forgotten')
$$;
COMMENT ON FUNCTION outbox.workless IS
    'Private: of the newest hundred messages, those that have neither work nor an ending.';

-- `kind` picks the branch's own condition; the others fold to false while planning. What is due
-- and not promoted yet has no index in the order of ids: `id + 0` keeps the planner from wading
-- through all that is not due, in search of one.
CREATE VIEW outbox.pending AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT 'ready' AS kind, NULL AS state, id, id AS key, slot,
               NULL::timestamptz AS available_at, attempts, last_error FROM outbox.ready
        UNION ALL
        SELECT 'lane', NULL, id, id, slot, NULL, 0::smallint, NULL FROM outbox.lane
        UNION ALL
        SELECT 'workless', NULL, id, id, slot, NULL, 0::smallint, NULL
            FROM (SELECT id, slot FROM outbox.workless() OFFSET 0) found
        UNION ALL
        SELECT 'retry', state, id, id, slot, available_at, attempts, last_error
            FROM outbox.parked
        UNION ALL
        SELECT 'due', state, id + 0, id, slot, available_at, attempts, last_error
            FROM outbox.parked
    ) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.key >= outbox.by_index(0)
      AND (w.kind = 'ready' OR w.kind = 'lane' OR w.kind = 'workless'
        OR w.kind = 'retry' AND w.state NOT IN ('scheduled', 'dead')
        OR w.kind = 'due' AND w.state NOT IN ('retry', 'dead') AND w.available_at <= now()
            AND w.available_at >= outbox.by_index('-infinity'::timestamptz)
            AND w.attempts >= outbox.by_index(0))
      AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.pending IS
    'To be published: due, claimed at this moment, waiting in its lane or for another attempt.';
COMMENT ON COLUMN outbox.pending.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.pending.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.pending.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.pending.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.pending.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.pending.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.pending.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.pending.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.pending.available_at IS
    'Since when, or from when on, it may be published.';
COMMENT ON COLUMN outbox.pending.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.pending.last_error IS 'Why the broker refused it last.';

CREATE VIEW outbox.scheduled AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM outbox.parked) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.state NOT IN ('retry', 'dead') AND w.available_at > outbox.by_index(now())
      AND w.key >= outbox.by_index(0) AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.scheduled IS 'Held until available_at (eta or countdown).';
COMMENT ON COLUMN outbox.scheduled.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.scheduled.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.scheduled.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.scheduled.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.scheduled.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.scheduled.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.scheduled.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.scheduled.created_at IS
    'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.scheduled.available_at IS 'Held until this time (eta or countdown).';
COMMENT ON COLUMN outbox.scheduled.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.scheduled.last_error IS 'Why the broker refused it last.';

CREATE VIEW outbox.dead AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM outbox.parked) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.state NOT IN ('scheduled', 'retry') AND w.key >= outbox.by_index(0)
      AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.dead IS
    'Given up; last_error says why. outbox.retry(message_id) tries again, outbox.discard deletes.';
COMMENT ON COLUMN outbox.dead.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.dead.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.dead.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.dead.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.dead.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.dead.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.dead.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.dead.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.dead.available_at IS 'When it was given up.';
COMMENT ON COLUMN outbox.dead.attempts IS
    'How often the broker has refused it; outages do not count.';
COMMENT ON COLUMN outbox.dead.last_error IS 'Why the broker refused it last.';

-- In the order of ids, found as the others are.
CREATE VIEW outbox.expired AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           coalesce(m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error, w.expired_at
    FROM (SELECT id AS key, * FROM outbox.expiry) w LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)])
    WHERE w.key >= outbox.by_index(0) AND coalesce(m.id, 0) <> 0;
COMMENT ON VIEW outbox.expired IS
    'Over before a worker could have them; no error. Forgotten by retention, as what was sent.';
COMMENT ON COLUMN outbox.expired.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.expired.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.expired.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.expired.exchange IS
    'Exchange it was for; empty is the default exchange.';
COMMENT ON COLUMN outbox.expired.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.expired.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.expired.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.expired.created_at IS
    'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.expired.available_at IS 'From when on it might have been published.';
COMMENT ON COLUMN outbox.expired.attempts IS
    'How often the broker had refused it; outages do not count.';
COMMENT ON COLUMN outbox.expired.last_error IS
    'Whether a worker was told, so that its result is REVOKED.';
COMMENT ON COLUMN outbox.expired.expired_at IS 'When the relay noticed.';

-- A message is sent when it was confirmed and no work is left for it. Nothing above the highest
-- confirmed id was ever sent: a backlog, which lies above it, is not even looked at. Where retention
-- has forgotten the receipts of that time already, being without work is enough.
CREATE VIEW outbox.sent AS
    SELECT w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           outbox.short_repr(m.headers, 'argsrepr') AS args,
           outbox.short_repr(m.headers, 'kwargsrepr') AS kwargs,
           coalesce(m.created_at, '-infinity') AS created_at,
           done.sent_at
    FROM (SELECT id, id AS key, slot FROM outbox.message) w
    LEFT JOIN LATERAL (
        SELECT true AS waits FROM outbox.ready r WHERE r.id = w.id AND r.slot = w.slot
        UNION ALL
        SELECT true FROM outbox.parked p WHERE p.id = w.id AND p.slot = w.slot
        UNION ALL
        SELECT true FROM outbox.lane l WHERE l.id = w.id AND l.slot = w.slot
        UNION ALL
        SELECT true FROM outbox.expiry e WHERE e.id = w.id AND e.slot = w.slot
        LIMIT 1) work ON true
    LEFT JOIN LATERAL (
        SELECT max(r.sent_at) AS sent_at FROM outbox.receipt r
         WHERE r.span @> w.id AND w.id = ANY (r.ids) AND r.slot = w.slot) done ON true
    LEFT JOIN outbox.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[outbox.by_index(m.id)]) AND w.slot = ANY (ARRAY[m.slot])
    WHERE w.key < outbox.by_index((
            SELECT coalesce(max(upper(r.span)), 9223372036854775807) FROM outbox.receipt r))
      AND NOT coalesce(work.waits, false) AND coalesce(m.id, 0) <> 0
      AND (done.sent_at IS NOT NULL OR coalesce(m.created_at, '-infinity') < (
            SELECT max(p.at) FROM outbox.progress p WHERE p.name = 'receipts_forgotten'));
COMMENT ON VIEW outbox.sent IS
    'Confirmed by the broker, and not yet forgotten by retention. The newest: ORDER BY id DESC.';
COMMENT ON COLUMN outbox.sent.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.sent.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.sent.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN outbox.sent.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.sent.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.sent.args IS
    'Positional arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.sent.kwargs IS
    'Named arguments as Celery renders them, at most 200 characters.';
COMMENT ON COLUMN outbox.sent.created_at IS 'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.sent.sent_at IS
    'When the broker confirmed it; after a replay, the last time.';

-- How many there are, of everything, in one row that is cheap on any backlog.

-- At most so many of a table's rows, by an index: neither a drained backlog's dead rows nor a million
-- others may hide the few that are asked for.
CREATE FUNCTION outbox.count_few(source regclass, condition text, few bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    counted bigint;
BEGIN
    EXECUTE format('SELECT count(*) FROM (SELECT FROM %s WHERE %s LIMIT %s) found',
                   source, condition, few) INTO counted;
    RETURN counted;
END $$;
COMMENT ON FUNCTION outbox.count_few IS 'Private: counts rows, at most so many of them.';

-- Counts a table exactly while it is small, or has few such rows; else from a sample of its pages:
-- the same ones each time, so that a count that grows has grown.
CREATE FUNCTION outbox.rough_count(source regclass, condition text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    few     constant bigint := 1000;
    pages   bigint := pg_relation_size(source) / current_setting('block_size')::bigint;
    percent float8 := 100.0 * 1000 / greatest(pages, 1000);
    counted bigint;
BEGIN
    IF pages <= 1000 THEN
        EXECUTE format('SELECT count(*) FROM %s WHERE %s', source, condition) INTO counted;
        RETURN counted;
    END IF;
    counted := outbox.count_few(source, condition, few + 1);
    IF counted <= few THEN
        RETURN counted;
    END IF;
    EXECUTE format('SELECT count(*) FROM %s TABLESAMPLE SYSTEM (%s) REPEATABLE (0) WHERE %s',
                   source, percent, condition) INTO counted;
    RETURN greatest(round(counted * 100.0 / percent), few + 1);
END $$;
COMMENT ON FUNCTION outbox.rough_count IS
    'Private: counts few rows or a small table exactly, and many by a sample.';

CREATE VIEW outbox.stats AS
    SELECT outbox.rough_count('outbox.ready', 'true')
             + outbox.rough_count('outbox.lane', 'true')
             + outbox.rough_count('outbox.parked', $$state NOT IN ('scheduled', 'dead')$$)
             + outbox.rough_count('outbox.parked',
                   $$state NOT IN ('retry', 'dead') AND available_at <= now()$$)
             + (SELECT count(*) FROM outbox.workless())
               AS pending,
           outbox.rough_count('outbox.parked',
                   $$state NOT IN ('retry', 'dead') AND available_at > now()$$) AS scheduled,
           outbox.rough_count('outbox.parked', $$state NOT IN ('scheduled', 'retry')$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort. What is
           -- paused, or limited, somebody wants to wait, and what is behind it in its lane too.
           coalesce(clock_timestamp() - (
               SELECT min(coalesce(m.available_at, m.created_at)) FROM (
                   (SELECT id, slot FROM outbox.ready
                     WHERE id >= outbox.by_index(0) ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT l.id, l.slot
                      FROM (SELECT id, slot, key FROM outbox.lane
                             WHERE id >= outbox.by_index(0) ORDER BY id LIMIT 1000) l
                     WHERE NOT EXISTS (
                         SELECT FROM outbox.parked p
                         WHERE p.lane = l.key AND p.state = 'retry' AND left(p.route, 1) = chr(30)
                           AND left(p.route, 7) <> chr(30) || 'depth:' OFFSET 0)
                     ORDER BY l.id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM outbox.parked
                     WHERE CASE WHEN state = 'retry'
                                     AND (route IS NULL OR left(route, 1) <> chr(30)
                                          OR left(route, 7) = chr(30) || 'depth:') THEN 1 END = 1
                       AND id >= outbox.by_index(0) AND suspicion >= outbox.by_index(0)
                     ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM outbox.parked
                     WHERE state NOT IN ('retry', 'dead') AND available_at <= now()
                       AND available_at >= outbox.by_index('-infinity'::timestamptz)
                       AND id >= outbox.by_index(0) AND attempts >= outbox.by_index(0)
                     ORDER BY available_at LIMIT 1)) w
               JOIN outbox.message m
                 ON m.id = ANY (ARRAY[w.id]) AND m.slot = ANY (ARRAY[w.slot])),
               interval '0') AS oldest_pending_age,
           outbox.rough_count('outbox.expiry', 'true') AS expired;
COMMENT ON VIEW outbox.stats IS
    'One row, cheap on any backlog: counts are exact to 1,000 at least and sampled beyond.';
COMMENT ON COLUMN outbox.stats.pending IS
    'How many are to be published; exact to 1,000 at least, sampled beyond.';
COMMENT ON COLUMN outbox.stats.scheduled IS 'How many are held until their time.';
COMMENT ON COLUMN outbox.stats.dead IS 'How many were given up.';
COMMENT ON COLUMN outbox.stats.oldest_pending_age IS
    'For how long the oldest pending message has been due that no pause and no rate holds.';
COMMENT ON COLUMN outbox.stats.expired IS 'How many expired, of those that are still kept.';

-- Messages that the broker has given up come home: from its queues of dead letters to outbox.dead.
--
-- The relay asks about all it found in such a queue, and takes out of it what is known here. So the
-- answer is committed first. What is still work is left there for now: it may be settled by a late
-- confirm, and nobody would know of its dead letter then.

-- For each message id: 'home', it is dead now, or waits for another attempt; 'known', it was dead or
-- expired already; 'busy', ask again later; 'unknown', it is not of this outbox, or forgotten.
-- Several messages may have one id (a retry has its task's): the newest one is meant. `+ 0` keeps the
-- planner from looking for it among all messages, from the newest on.
CREATE FUNCTION outbox.bring_home(
    message_ids text[], states text[], errors text[], seconds float8 DEFAULT 0
) RETURNS TABLE (message_id text, verdict text)
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH found AS MATERIALIZED (
        SELECT asked.*, m.id, m.slot, m.ordering_key
        FROM unnest(message_ids, states, errors) AS asked (message_id, state, error)
        LEFT JOIN LATERAL (
            SELECT kept.id, kept.slot, kept.ordering_key FROM message kept
             WHERE kept.message_id = asked.message_id
             ORDER BY kept.id + 0 DESC LIMIT 1 FOR KEY SHARE) m ON true
    ), judged AS MATERIALIZED (
        SELECT f.*, CASE
            WHEN f.id IS NULL THEN 'unknown'
            WHEN EXISTS (SELECT FROM ready r WHERE r.id = f.id AND r.slot = f.slot)
              OR EXISTS (SELECT FROM lane l WHERE l.id = f.id AND l.slot = f.slot) THEN 'busy'
            WHEN EXISTS (SELECT FROM expiry e WHERE e.id = f.id AND e.slot = f.slot) THEN 'known'
            ELSE coalesce((SELECT CASE p.state WHEN 'dead' THEN 'known' ELSE 'busy' END
                             FROM parked p WHERE p.id = f.id AND p.slot = f.slot), 'home')
            END AS verdict
        FROM found f
    ), coming AS MATERIALIZED (
        SELECT DISTINCT ON (id, slot) * FROM judged WHERE verdict = 'home'
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM coming), ARRAY(SELECT slot FROM coming))
        WHERE EXISTS (SELECT FROM coming)
    ), placed AS MATERIALIZED (
        SELECT coalesce(n.number, c.id) AS id, c.slot, c.state, c.error, c.ordering_key
        FROM coming c LEFT JOIN renumbered n ON n.id = c.id AND n.slot = c.slot
    ), brought AS (
        INSERT INTO parked (id, slot, state, available_at, last_error, lane)
        SELECT id, slot, state, now() + seconds * interval '1 second', error, ordering_key
        FROM placed WHERE state = 'dead' OR ordering_key IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT id, slot, ordering_key
        FROM placed WHERE state <> 'dead' AND ordering_key IS NOT NULL
    )
    SELECT judged.message_id, judged.verdict FROM judged
$$;
COMMENT ON FUNCTION outbox.bring_home IS
    'Private: what the broker gave up is dead here, with its reason. Returns a verdict for each.';

-- What people and programs do to messages by id: take back, try again, delete, send once more.
--
-- Each works in the caller's transaction and is safe beside running relays. Without statistics
-- the planner would read the whole backlog to find the one message it is about: hence the
-- settings.

-- Gives messages that have neither work nor an ending (see `workless`) their work back. Each call
-- looks at the newest `portion` of messages and at as many others, going on where the last call
-- ended, from the oldest to the newest and over again. Returns how many it found. Where very many
-- batches of receipts reach over those messages it passes them by: to look would take too long.
--
-- Ids can have been given twice: work and endings are of the message in their slot. A message whose
-- id another one has among the work gets a new one.
CREATE FUNCTION outbox.restore_work(portion integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    portion_limit constant bigint := greatest(portion, 1);
    forgotten timestamptz;
    above bigint;
    ids bigint[];
    slots smallint[];
    lowest bigint;
    highest bigint;
    restored bigint := 0;
BEGIN
    -- One at a time, and each statement sees what the one before has committed.
    IF current_setting('transaction_isolation') <> 'read committed'
            OR NOT pg_try_advisory_xact_lock(
                hashtextextended('outbox.restore_work', 'ready'::regclass::oid::bigint)) THEN
        RETURN 0;
    END IF;
    SELECT coalesce(max(at), '-infinity') INTO forgotten FROM progress
     WHERE name = 'receipts_forgotten';
    SELECT coalesce(max(id), 0) INTO above FROM progress WHERE name = 'work_checked';
    FOR part IN 1..2 LOOP
        IF part = 1 THEN
            SELECT array_agg(id), array_agg(slot) INTO ids, slots FROM (
                SELECT id, slot FROM message WHERE id > above
                ORDER BY id FETCH FIRST portion_limit ROWS WITH TIES) m;
            INSERT INTO progress AS p (name, id) VALUES ('work_checked', CASE
                WHEN cardinality(ids) >= portion_limit THEN ids[cardinality(ids)] ELSE 0 END)
            ON CONFLICT (name) DO UPDATE SET id = excluded.id WHERE p.id <> excluded.id;
        ELSE
            SELECT array_agg(id), array_agg(slot) INTO ids, slots FROM (
                SELECT id, slot FROM message ORDER BY id DESC LIMIT portion_limit) m;
        END IF;
        SELECT array_agg(i), array_agg(s), min(i), max(i) INTO ids, slots, lowest, highest
        FROM unnest(ids, slots) AS looked (i, s)
        WHERE NOT EXISTS (SELECT FROM ready r WHERE r.id = i AND r.slot = s)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = i AND p.slot = s)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = i AND l.slot = s)
          AND NOT EXISTS (SELECT FROM expiry e WHERE e.id = i AND e.slot = s);
        CONTINUE WHEN ids IS NULL OR 5000 < (SELECT count(*) FROM (
            SELECT FROM receipt r WHERE r.span && int8range(lowest, highest, '[]')
            LIMIT 5001) reaching);
        SELECT array_agg(i), array_agg(s) INTO ids, slots FROM unnest(ids, slots) AS looked (i, s)
        WHERE (i, s) NOT IN (SELECT unnest(r.ids), r.slot FROM receipt r
                              WHERE r.span && int8range(lowest, highest, '[]'));
        WITH workless AS MATERIALIZED (
            SELECT m.* FROM unnest(ids, slots) AS missing (i, s), LATERAL (
                SELECT id, slot, available_at, ordering_key FROM message
                WHERE id = i AND slot = s AND created_at >= forgotten OFFSET 0) m
        ), renumbered AS MATERIALIZED (
            SELECT * FROM renumber(ARRAY(SELECT id FROM workless), ARRAY(SELECT slot FROM workless))
            WHERE EXISTS (SELECT FROM workless)
        ), found AS (
            SELECT coalesce(n.number, w.id) AS id, w.slot, w.available_at, w.ordering_key
            FROM workless w LEFT JOIN renumbered n ON n.id = w.id AND n.slot = w.slot
        ), due AS (
            INSERT INTO ready (id, slot) SELECT id, slot FROM found
            WHERE ordering_key IS NULL AND coalesce(available_at <= now(), true)
            ON CONFLICT (id) DO NOTHING RETURNING 1
        ), queued AS (
            INSERT INTO lane (id, slot, key) SELECT id, slot, ordering_key FROM found
            WHERE ordering_key IS NOT NULL AND coalesce(available_at <= now(), true)
            ON CONFLICT (id) DO NOTHING RETURNING 1
        ), held AS (
            INSERT INTO parked (id, slot, state, available_at, lane)
            SELECT id, slot, 'scheduled', available_at, ordering_key FROM found
            WHERE available_at > now()
            ON CONFLICT (id) DO NOTHING RETURNING 1
        )
        SELECT restored + (SELECT count(*) FROM due) + (SELECT count(*) FROM queued)
            + (SELECT count(*) FROM held) INTO restored;
    END LOOP;
    RETURN restored;
END $$;
COMMENT ON FUNCTION outbox.restore_work IS
    'Gives messages without work or ending their work back: a portion a call. Returns how many.';

-- The producer's own second thoughts, in its own transaction. Dead rows are discard()'s business.
CREATE FUNCTION outbox.cancel(message_id text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w
        WHERE r.id = w.id AND r.slot = w.slot AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w
        WHERE p.id = w.id AND p.slot = w.slot AND p.state <> 'dead'
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id AND l.slot = w.slot
        RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) > 0 FROM gone
$$;
COMMENT ON FUNCTION outbox.cancel IS
    'Takes back a message that is still pending, in your transaction. False: too late, or unknown.';

-- dead -> pending, with a fresh count of attempts; of a lane: to its place in it.
CREATE FUNCTION outbox.retry(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT outbox.ring();
    WITH revived AS (
        DELETE FROM parked p USING message m
        WHERE m.message_id = $1 AND p.id = m.id AND p.slot = m.slot AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM revived), ARRAY(SELECT slot FROM revived))
        WHERE EXISTS (SELECT FROM revived r, twins_at_work(r.id, r.slot))
    ), placed AS MATERIALIZED (
        SELECT r.*, coalesce(n.number, r.id) AS number
        FROM revived r LEFT JOIN renumbered n ON n.id = r.id AND n.slot = r.slot
    ), made AS (
        INSERT INTO ready (id, slot) SELECT number, slot FROM placed WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT number, slot, lane FROM placed WHERE lane IS NOT NULL
    ) SELECT count(*) FROM placed
$$;
COMMENT ON FUNCTION outbox.retry IS 'dead -> pending. Returns how many.';

-- The same by id; without slots, of whatever is dead: no two rows that wait share an id. Not asked by
-- `retry`, which people call for thousands: a function in a function is planned at every call.
CREATE FUNCTION outbox.retry_rows(rows bigint[], slots smallint[] DEFAULT NULL)
RETURNS SETOF outbox.changed
LANGUAGE sql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH revived AS (
        DELETE FROM parked p USING unnest($1, $2) AS wanted (id, slot)
        WHERE p.id = wanted.id AND p.slot = coalesce(wanted.slot, p.slot) AND p.state = 'dead'
        RETURNING p.id, p.slot, p.lane
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM revived), ARRAY(SELECT slot FROM revived))
        WHERE EXISTS (SELECT FROM revived r, twins_at_work(r.id, r.slot))
    ), placed AS MATERIALIZED (
        SELECT r.*, coalesce(n.number, r.id) AS number
        FROM revived r LEFT JOIN renumbered n ON n.id = r.id AND n.slot = r.slot
    ), made AS (
        INSERT INTO ready (id, slot) SELECT number, slot FROM placed WHERE lane IS NULL
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT number, slot, lane FROM placed WHERE lane IS NOT NULL
    ) SELECT id, slot, number FROM placed
$$;
COMMENT ON FUNCTION outbox.retry_rows IS 'Private: dead -> pending, by id. Returns which.';

-- dead or pending -> gone. A message a relay holds at this moment may already be on the wire:
-- kept.
CREATE FUNCTION outbox.discard(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    WITH wanted AS (
        SELECT m.id, m.slot FROM message m WHERE m.message_id = $1
    ), unready AS (
        DELETE FROM ready r USING wanted w
        WHERE r.id = w.id AND r.slot = w.slot AND r.lease_until < now()
        RETURNING r.id, r.slot
    ), unparked AS (
        DELETE FROM parked p USING wanted w WHERE p.id = w.id AND p.slot = w.slot
        RETURNING p.id, p.slot
    ), unlaned AS (
        DELETE FROM lane l USING wanted w WHERE l.id = w.id AND l.slot = w.slot
        RETURNING l.id, l.slot
    ), gone AS (
        DELETE FROM message m
        USING (SELECT * FROM unready UNION ALL SELECT * FROM unparked
               UNION ALL SELECT * FROM unlaned) d
        WHERE m.id = d.id AND m.slot = d.slot RETURNING 1
    ) SELECT count(*) FROM gone
$$;
COMMENT ON FUNCTION outbox.discard IS 'dead or pending -> gone. Returns how many.';

-- Messages that have no work get it again, with the message ids they had. Retention forgets none
-- meanwhile, and what it is at is waited for: else work would be left of a message that is gone.
CREATE FUNCTION outbox.sent_again(ids bigint[], slots smallint[]) RETURNS SETOF outbox.changed
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    SELECT outbox.ring();
    SELECT pg_advisory_xact_lock_shared(
        hashtextextended('sent_again', 'ready'::regclass::oid::bigint));
    WITH sent AS MATERIALIZED (
        SELECT DISTINCT m.id, m.slot, m.ordering_key
        FROM unnest($1, $2) AS chosen (id, slot) JOIN message m USING (id, slot)
        WHERE NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id AND r.slot = m.slot)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id AND p.slot = m.slot)
          AND NOT EXISTS (SELECT FROM lane l WHERE l.id = m.id AND l.slot = m.slot)
          AND NOT EXISTS (SELECT FROM expiry e WHERE e.id = m.id AND e.slot = m.slot)
    ), renumbered AS MATERIALIZED (
        SELECT * FROM renumber(ARRAY(SELECT id FROM sent), ARRAY(SELECT slot FROM sent))
        WHERE EXISTS (SELECT FROM sent s, twins_at_work(s.id, s.slot))
           OR (SELECT count(*) > count(DISTINCT id) FROM sent)
    ), placed AS MATERIALIZED (
        SELECT s.*, coalesce(n.number, s.id) AS number
        FROM sent s LEFT JOIN renumbered n ON n.id = s.id AND n.slot = s.slot
    ), made AS (
        INSERT INTO ready (id, slot)
        SELECT number, slot FROM placed WHERE ordering_key IS NULL
        ON CONFLICT (id) DO NOTHING RETURNING id
    ), queued AS (
        INSERT INTO lane (id, slot, key)
        SELECT number, slot, ordering_key FROM placed WHERE ordering_key IS NOT NULL
        ON CONFLICT (id) DO NOTHING RETURNING id
    )
    SELECT p.id, p.slot, p.number FROM placed p
    WHERE CASE WHEN p.number IN (SELECT id FROM made UNION ALL SELECT id FROM queued) THEN true END
$$;
COMMENT ON FUNCTION outbox.sent_again IS
    'Private: gives messages that have no work left their work again. Returns which.';

CREATE FUNCTION outbox.send_again(ids bigint[], slots smallint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    SELECT count(*) FROM sent_again($1, $2)
$$;
COMMENT ON FUNCTION outbox.send_again IS
    'Private: gives messages that have no work left their work again. Returns how many.';

-- sent -> pending again.
CREATE FUNCTION outbox.replay(
    since timestamptz, until timestamptz DEFAULT now(), task text DEFAULT NULL
) RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    WITH confirmed AS (
        SELECT DISTINCT unnest(r.ids) AS id, r.slot FROM receipt r
        WHERE r.sent_at BETWEEN $1 AND $2
    ), chosen AS (
        SELECT m.id, m.slot FROM confirmed c JOIN message m ON m.id = c.id AND m.slot = c.slot
        WHERE $3 IS NULL OR m.task = $3
    ) SELECT send_again(array_agg(id), array_agg(slot)) FROM chosen
$$;
COMMENT ON FUNCTION outbox.replay IS
    'sent -> pending again, for messages confirmed between the two times. Returns how many.';

CREATE FUNCTION outbox.replay_message(message_id text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
    SELECT send_again(array_agg(m.id), array_agg(m.slot)) FROM message m
    WHERE m.message_id = $1
      AND (EXISTS (SELECT FROM confirms_of(m.id, m.slot))
        OR m.created_at < (SELECT max(p.at) FROM progress p WHERE p.name = 'receipts_forgotten'))
$$;
COMMENT ON FUNCTION outbox.replay_message IS
    'sent -> pending again, for one message. Returns how many.';

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

-- A Celery task from psql, a trigger or any language: protocol 2, JSON, as Celery writes it.

-- SQL cannot see the app's settings: what it needs of them is chosen here, once for the schema.
CREATE TABLE outbox.setting (
    name  text PRIMARY KEY CHECK (name = 'default_queue'),
    value text NOT NULL CHECK (octet_length(value) BETWEEN 1 AND 255)
);
COMMENT ON TABLE outbox.setting IS 'Private: what outbox.set_default_queue has chosen.';
COMMENT ON COLUMN outbox.setting.name IS 'Which setting: default_queue.';
COMMENT ON COLUMN outbox.setting.value IS 'Its value.';

CREATE FUNCTION outbox.default_queue() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
    SELECT coalesce((SELECT value FROM setting WHERE name = 'default_queue'), 'celery')
$$;
COMMENT ON FUNCTION outbox.default_queue IS
    'Where enqueue() sends tasks that name no queue; see set_default_queue().';

CREATE FUNCTION outbox.set_default_queue(queue text) RETURNS void
LANGUAGE plpgsql SET search_path = outbox, pg_temp AS $$
BEGIN
    IF coalesce(octet_length(queue), 0) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'set_default_queue: a queue has a name of 1 to 255 bytes'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give the task_default_queue of the Celery app.';
    END IF;
    INSERT INTO setting (name, value) VALUES ('default_queue', queue)
    ON CONFLICT (name) DO UPDATE SET value = excluded.value;
END $$;
COMMENT ON FUNCTION outbox.set_default_queue IS
    'Chooses the queue of enqueue(): the task_default_queue of the app. For the schema''s owner.';

CREATE FUNCTION outbox.enqueue(
    task text, args jsonb DEFAULT '[]', kwargs jsonb DEFAULT '{}',
    queue text DEFAULT outbox.default_queue(), eta timestamptz DEFAULT NULL,
    task_id text DEFAULT NULL, expires timestamptz DEFAULT NULL, priority integer DEFAULT NULL,
    ordering_key text DEFAULT NULL, dedup_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = outbox, pg_temp AS $$
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
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('Leave queue out to use %L.', default_queue());
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
COMMENT ON FUNCTION outbox.enqueue IS 'Enqueues a Celery task from SQL; returns its task id.';

-- What the broker has confirmed and no worker has left a receipt of: lost on the way, or not yet
-- run. The receipts are in the schema `inbox` of this database or of another, so that nothing here
-- needs it before it is asked. Confirmed messages are read in the order of their confirms, a
-- portion at a time: what waits to be sent is not looked at, and no producer waits.

-- The next portion, about twenty thousand messages: when its last batch was confirmed, and their ids
-- in the order in which an index has them. Neighbours are read as a range of ids, slot by slot. How
-- many a batch has, its size tells: it is not read for that.
CREATE FUNCTION outbox.confirmed_portion(
    after timestamptz, until timestamptz, task text DEFAULT NULL,
    OUT last timestamptz, OUT message_ids text[]
) LANGUAGE plpgsql SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_mergejoin = off
SET enable_hashjoin = off SET enable_nestloop = on SET jit = off AS $$
DECLARE
    of_slot smallint;
BEGIN
    SELECT max(sent_at) INTO last FROM (
        SELECT sent_at, sum(size) OVER (ORDER BY sent_at ROWS UNBOUNDED PRECEDING) - size AS before
        FROM (SELECT r.sent_at, pg_column_size(r.ids) / 8 AS size FROM receipt r
               WHERE r.sent_at > after AND r.sent_at <= until
               ORDER BY r.sent_at LIMIT 2000) batches) sized
    WHERE before < 20000;
    IF last IS NULL THEN RETURN; END IF;
    message_ids := '{}';
    FOR of_slot IN
        SELECT DISTINCT r.slot FROM receipt r WHERE r.sent_at > after AND r.sent_at <= last
    LOOP
        WITH wanted AS MATERIALIZED (
            SELECT DISTINCT unnest(r.ids) AS id FROM receipt r
             WHERE r.sent_at > after AND r.sent_at <= last AND r.slot = of_slot
        ), runs AS MATERIALIZED (
            SELECT min(id) AS lowest, max(id) AS highest FROM (
                SELECT id, count(*) FILTER (WHERE gap > 20) OVER (ORDER BY id) AS run FROM (
                    SELECT id, id - lag(id) OVER (ORDER BY id) AS gap FROM wanted) spaced) numbered
            GROUP BY run
        )
        -- CASE: a condition of its own could become a join, which is planned without knowing how
        -- many.
        SELECT message_ids || coalesce(array_agg(m.name ORDER BY m.name), '{}')
        INTO message_ids
        FROM runs CROSS JOIN LATERAL (
            SELECT x.id, x.message_id::text AS name, x.task FROM message x
             WHERE x.slot = of_slot AND x.id BETWEEN runs.lowest AND runs.highest OFFSET 0) m
        WHERE CASE WHEN m.id IN (SELECT id FROM wanted) THEN $3 IS NULL OR m.task = $3 END;
    END LOOP;
END $$;
COMMENT ON FUNCTION outbox.confirmed_portion IS
    'Private: the next messages that were confirmed after that time.';

-- A retry has the id of the message it follows, and so has what a task replaced itself by.
CREATE FUNCTION outbox.run_number(headers json) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce((regexp_match(headers::text,
                '"replaced_task_nesting": ?(\d{1,6})[,}]'))[1]::bigint, 0) * 1000000
         + coalesce((regexp_match(headers::text, '"retries": ?(\d{1,6})[,}]'))[1]::bigint, 0)
$$;
COMMENT ON FUNCTION outbox.run_number IS
    'Private: which run of its task a message asks for; a later run has a higher number.';

-- Of what inbox.unfinished() found, that which is missing: confirmed in time, not waiting here to
-- be sent again, and either told of by a worker or of a task that was watched by then. What had ended
-- without success, was sent again and confirmed after that, has to end once more; a few seconds later,
-- as the end of a quick task is written down before its confirm. `heard_at` is `noted_at` by the clock
-- of this server, where the inbox has another one.
CREATE FUNCTION outbox.missing_among(found json, watched json, until timestamptz)
RETURNS TABLE (
    id bigint, message_id text, task text, exchange text, routing_key text, declarations text,
    created_at timestamptz, sent_at timestamptz, outcome text, error text, worker text,
    noted_at timestamptz, slot smallint
) LANGUAGE sql STABLE SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off AS $$
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key, m.declare::text, m.created_at,
           done.sent_at, f.outcome, f.error, f.worker, f.noted_at, m.slot
    FROM json_to_recordset($1) AS f (message_id text, outcome text, error text, worker text,
                                     run bigint, noted_at timestamptz, heard_at timestamptz)
    JOIN LATERAL (SELECT * FROM message x WHERE x.message_id = f.message_id OFFSET 0) m ON true
    JOIN LATERAL (
        SELECT min(c.sent_at) AS first_at, max(c.sent_at) AS sent_at FROM confirms_of(m.id, m.slot) c
    ) done ON done.sent_at <= $3
    CROSS JOIN LATERAL (SELECT coalesce(f.heard_at, f.noted_at) AS at) heard
    LEFT JOIN json_to_recordset($2) AS w (task text, since timestamptz) ON w.task = m.task
    WHERE NOT EXISTS (SELECT FROM ready x WHERE x.id = m.id AND x.slot = m.slot)
      AND NOT EXISTS (SELECT FROM parked x WHERE x.id = m.id AND x.slot = m.slot)
      AND NOT EXISTS (SELECT FROM lane x WHERE x.id = m.id AND x.slot = m.slot)
      AND NOT EXISTS (SELECT FROM expiry x WHERE x.id = m.id AND x.slot = m.slot)
      AND CASE
            WHEN f.outcome IS NULL THEN done.sent_at >= w.since
            WHEN f.outcome IN ('retried', 'ignored') THEN run_number(m.headers) > f.run
            WHEN f.outcome IN ('failed', 'rejected', 'revoked') THEN
                done.first_at < heard.at AND done.sent_at > heard.at + interval '10 seconds'
                AND run_number(m.headers) >= f.run
            ELSE run_number(m.headers) >= f.run END
    ORDER BY m.id
$$;
COMMENT ON FUNCTION outbox.missing_among IS 'Private: what is missing of these messages.';

CREATE FUNCTION outbox.find_missing(
    older_than interval, OUT id bigint, OUT message_id text, OUT task text, OUT exchange text,
    OUT routing_key text, OUT created_at timestamptz, OUT sent_at timestamptz, OUT outcome text,
    OUT error text, OUT worker text, OUT noted_at timestamptz
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = outbox, pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    portion record;
    after timestamptz;
    found json;
    watched json;
BEGIN
    IF to_regprocedure('inbox.unfinished(text[])') IS NULL THEN
        RAISE undefined_table USING
            MESSAGE = 'this database has no inbox that could tell what has run',
            HINT = 'Where workers keep it in another database, ask outbox-relay audit --inbox-url;'
                   ' otherwise run outbox-migrate up, and call celery_inbox.receipts(app, connect)'
                   ' in the workers.';
    END IF;
    EXECUTE 'SELECT json_agg(w), min(since) FROM inbox.watched w' INTO watched, after;
    LOOP
        SELECT * INTO portion FROM confirmed_portion(after, horizon);
        EXIT WHEN portion.last IS NULL;
        after := portion.last;
        EXECUTE 'SELECT json_agg(f) FROM inbox.unfinished($1) f'
            INTO found USING portion.message_ids;
        CONTINUE WHEN found IS NULL;
        RETURN QUERY SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key, m.created_at,
                            m.sent_at, m.outcome, m.error, m.worker, m.noted_at
                     FROM missing_among(found, watched, horizon) m;
    END LOOP;
END $$;
COMMENT ON FUNCTION outbox.find_missing IS
    'What was confirmed longer ago than that and has no receipt of a run that ended.';

CREATE VIEW outbox.missing AS
    SELECT * FROM outbox.find_missing(interval '5 minutes');
COMMENT ON VIEW outbox.missing IS
    'Confirmed by the broker more than five minutes ago, and no worker has finished it.';
COMMENT ON COLUMN outbox.missing.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN outbox.missing.message_id IS 'The Celery task id.';
COMMENT ON COLUMN outbox.missing.task IS 'The Celery task name.';
COMMENT ON COLUMN outbox.missing.exchange IS
    'Exchange it was published to; empty is the default exchange.';
COMMENT ON COLUMN outbox.missing.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN outbox.missing.created_at IS
    'When it was inserted, by the clock of this server.';
COMMENT ON COLUMN outbox.missing.sent_at IS 'When the broker confirmed it.';
COMMENT ON COLUMN outbox.missing.outcome IS
    'What a worker has told of it all the same: held, lost, unregistered, undecodable, retried.';
COMMENT ON COLUMN outbox.missing.error IS 'The name of the exception that was told of.';
COMMENT ON COLUMN outbox.missing.worker IS 'Who told of it.';
COMMENT ON COLUMN outbox.missing.noted_at IS 'When.';

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

-- What people look at beside the views, a bounded part at a time, whatever is kept.

-- One portion of what is missing: the batches confirmed next after a time. Whoever asks goes on with
-- `last`, until it is null: so a page answers soon, and says how far it has looked.
CREATE FUNCTION outbox.missing_portion(
    after timestamptz, until timestamptz,
    OUT last timestamptz, OUT looked integer, OUT missing json
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = outbox, pg_temp AS $$
DECLARE
    confirmed text[];
    unfinished json;
    watched json;
BEGIN
    SELECT p.last, p.message_ids INTO last, confirmed FROM confirmed_portion(after, until) p;
    looked := coalesce(cardinality(confirmed), 0);
    IF looked = 0 THEN RETURN; END IF;
    EXECUTE 'SELECT json_agg(f) FROM inbox.unfinished($1) f' INTO unfinished USING confirmed;
    IF unfinished IS NULL THEN RETURN; END IF;
    EXECUTE 'SELECT json_agg(w) FROM inbox.watched w' INTO watched;
    SELECT json_agg(lacking) INTO missing FROM (
        SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key, m.created_at, m.sent_at,
               m.outcome, m.error, m.worker, m.slot
        FROM missing_among(unfinished, watched, until) m) lacking;
END $$;
COMMENT ON FUNCTION outbox.missing_portion IS
    'Private: what is missing of the batches that were confirmed next after that time.';

-- The messages of one canvas: its root, the parent of a message, and what has the same root. The
-- ids of both stand in the headers, which have no index: of what came after the root the next
-- five thousand messages are looked at.
CREATE FUNCTION outbox.family(
    of bigint, of_slot smallint DEFAULT NULL, OUT relation text, OUT id bigint, OUT message_id text, OUT task text,
    OUT created_at timestamptz
) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50 SET search_path = outbox, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    own record;
    root text;
    parent text;
    first bigint;
BEGIN
    SELECT m.message_id, m.headers::text AS headers INTO own
    FROM message m WHERE m.id = of AND m.slot = coalesce(of_slot, m.slot) ORDER BY m.created_at DESC LIMIT 1;
    root := (regexp_match(own.headers, '"root_id" ?: ?"([^"\\]{1,255})"'))[1];
    parent := (regexp_match(own.headers, '"parent_id" ?: ?"([^"\\]{1,255})"'))[1];
    IF root IS NULL THEN RETURN; END IF;
    SELECT min(m.id) INTO first FROM message m WHERE m.message_id = root;
    RETURN QUERY
        SELECT CASE WHEN m.message_id = parent THEN 'parent' ELSE 'root' END,
               m.id, m.message_id::text, m.task::text, m.created_at::timestamptz
        FROM message m
        WHERE m.message_id = ANY (ARRAY[root, parent]) AND m.message_id <> own.message_id
        ORDER BY m.id LIMIT 20;
    RETURN QUERY
        SELECT CASE WHEN m.headers ~ ('"parent_id" ?: ?"' || regexp_replace(
                        own.message_id, '([^[:alnum:]_-])', '\\\1', 'g') || '"')
                    THEN 'child' ELSE 'relative' END,
               m.id, m.message_id::text, m.task::text, m.created_at::timestamptz
        FROM (SELECT x.id, x.message_id, x.task, x.created_at, x.headers::text AS headers
                FROM message x WHERE x.id > coalesce(first, of) ORDER BY x.id LIMIT 5000) m
        WHERE position('"' || root || '"' IN m.headers) > 0
          AND m.message_id <> own.message_id AND m.message_id <> root
          AND m.message_id IS DISTINCT FROM parent
        ORDER BY m.id LIMIT 30;
END $$;
COMMENT ON FUNCTION outbox.family IS
    'Private: root, parent, children and relatives of a message of a canvas.';


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

-- A function runs for everyone unless this is said; outbox-migrate grant gives each role its own.

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.version, outbox.by_index, outbox.short_repr, outbox.workless,
    outbox.bell, outbox.ring
    TO PUBLIC;
