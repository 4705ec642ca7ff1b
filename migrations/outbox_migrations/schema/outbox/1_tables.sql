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
