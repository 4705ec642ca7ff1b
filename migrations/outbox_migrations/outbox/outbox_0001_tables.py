"""Create the tables: insert-only messages, and narrow work rows beside them.

`message` is what goes on the wire and is never updated. `ready` and `parked` hold the work still to
be done, a few dozen bytes a row, so that claims stay cheap whatever the payload, the backlog or the
age of the oldest transaction. `docs/decisions/0001-physical-design.md` has the measurements.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations.components import schema_of

revision = "outbox_0001"
down_revision = None
branch_labels = ("outbox",)

SLOTS = 16

# Sixteen fixed slots of half a day. Retention empties a slot with TRUNCATE, which locks that slot
# alone; creating and dropping partitions at run time would lock the parent under the producers.
TABLES = """
CREATE TABLE {outbox}.message (
    id               bigint GENERATED ALWAYS AS IDENTITY,
    slot             smallint NOT NULL
                     DEFAULT (extract(epoch FROM now())::bigint / 43200 % 16)::smallint,
    message_id       text NOT NULL,
    task             text NOT NULL,
    exchange         text NOT NULL DEFAULT '',
    routing_key      text NOT NULL DEFAULT '',
    headers          json NOT NULL DEFAULT '{}',
    properties       json NOT NULL DEFAULT '{}',
    body             bytea NOT NULL,
    content_type     text NOT NULL,
    content_encoding text NOT NULL,
    mandatory        boolean NOT NULL DEFAULT true,
    declare          json NOT NULL DEFAULT '[]',
    available_at     timestamptz,
    expires_at       timestamptz,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (id, slot),
    -- AMQP carries these as short strings: one length byte.
    CONSTRAINT message_id_is_short CHECK (octet_length(message_id) BETWEEN 1 AND 255),
    CONSTRAINT task_is_named CHECK (octet_length(task) BETWEEN 1 AND 1000),
    CONSTRAINT exchange_is_short CHECK (octet_length(exchange) <= 255),
    CONSTRAINT routing_key_is_short CHECK (octet_length(routing_key) <= 255),
    CONSTRAINT content_type_is_short CHECK (octet_length(content_type) BETWEEN 1 AND 255),
    CONSTRAINT content_encoding_is_short CHECK (octet_length(content_encoding) BETWEEN 1 AND 255),
    CONSTRAINT headers_are_an_object CHECK (json_typeof(headers) = 'object'),
    CONSTRAINT properties_are_an_object CHECK (json_typeof(properties) = 'object'),
    CONSTRAINT declare_is_an_array CHECK (json_typeof(declare) = 'array'),
    -- The default max_message_size of RabbitMQ 3; headers must fit one frame.
    CONSTRAINT body_fits_a_broker CHECK (octet_length(body) <= 134217728),
    CONSTRAINT headers_fit_a_frame CHECK (octet_length(headers::text) <= 131072)
) PARTITION BY LIST (slot);

CREATE INDEX message_message_id ON {outbox}.message (message_id);

-- Half-empty pages keep the lease a heap-only update: no index entry, a short WAL record.
CREATE TABLE {outbox}.ready (
    id          bigint PRIMARY KEY,
    slot        smallint NOT NULL,
    attempts    smallint NOT NULL DEFAULT 0,
    suspicion   smallint NOT NULL DEFAULT 0,
    lease       bigint,
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    last_error  text
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE {outbox}.parked (
    id           bigint PRIMARY KEY,
    slot         smallint NOT NULL,
    state        text NOT NULL CHECK (state IN ('scheduled', 'retry', 'dead')),
    available_at timestamptz NOT NULL,
    attempts     smallint NOT NULL DEFAULT 0,
    suspicion    smallint NOT NULL DEFAULT 0,
    last_error   text
);
CREATE INDEX parked_due ON {outbox}.parked (available_at) WHERE state <> 'dead';
CREATE INDEX parked_state ON {outbox}.parked (state, id);

-- One row per settled batch: a sent time for every message at eight bytes each.
CREATE TABLE {outbox}.receipt (
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    span    int8range NOT NULL,
    ids     bigint[] NOT NULL
);
CREATE INDEX receipt_sent_at ON {outbox}.receipt (sent_at);
CREATE INDEX receipt_span ON {outbox}.receipt USING gist (span);
"""

# Whoever inserts a message makes its work row, with no right beyond INSERT on `message`.
TRIGGER = """
CREATE FUNCTION {outbox}.make_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
BEGIN
    INSERT INTO ready (id, slot)
        SELECT id, slot FROM inserted WHERE available_at IS NULL OR available_at <= now();
    INSERT INTO parked (id, slot, state, available_at)
        SELECT id, slot, 'scheduled', available_at FROM inserted WHERE available_at > now();
    RETURN NULL;
END $$;

CREATE TRIGGER make_work AFTER INSERT ON {outbox}.message
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION {outbox}.make_work();
"""

COMMENTS = """
COMMENT ON SCHEMA {outbox} IS
    'Transactional outbox for Celery: look at pending, scheduled, sent, dead, stats.';
COMMENT ON TABLE {outbox}.message IS
    'Every message kept, exactly as it will go or went on the wire. Insert-only.';
COMMENT ON COLUMN {outbox}.message.id IS 'Order of insertion. Not the task id.';
COMMENT ON COLUMN {outbox}.message.slot IS
    'Private: the half-day partition the message is stored in.';
COMMENT ON COLUMN {outbox}.message.message_id IS 'The Celery task id.';
COMMENT ON COLUMN {outbox}.message.task IS 'The Celery task name, or the name given to an event.';
COMMENT ON COLUMN {outbox}.message.exchange IS
    'Exchange it is published to; empty is the default exchange.';
COMMENT ON COLUMN {outbox}.message.routing_key IS
    'Routing key; with the default exchange, the name of the queue.';
COMMENT ON COLUMN {outbox}.message.headers IS
    'Application headers. json, not jsonb: the text is kept to the letter.';
COMMENT ON COLUMN {outbox}.message.properties IS
    'The other AMQP properties: delivery_mode, priority, correlation_id, expiration ...';
COMMENT ON COLUMN {outbox}.message.body IS 'The serialised (and perhaps compressed) body.';
COMMENT ON COLUMN {outbox}.message.content_type IS
    'MIME type of the body, such as application/json.';
COMMENT ON COLUMN {outbox}.message.content_encoding IS 'Encoding of the body, such as utf-8.';
COMMENT ON COLUMN {outbox}.message.mandatory IS
    'Whether reaching no queue is a failure. False for fanout.';
COMMENT ON COLUMN {outbox}.message.declare IS
    'Queues and exchanges Celery would have declared before publishing.';
COMMENT ON COLUMN {outbox}.message.available_at IS
    'Not published before this time (the eta). Null: at once.';
COMMENT ON COLUMN {outbox}.message.expires_at IS
    'Not published after this time. Null: never expires.';
COMMENT ON COLUMN {outbox}.message.created_at IS
    'When the row was inserted, by the clock of this server.';
COMMENT ON TABLE {outbox}.ready IS
    'Private: messages to publish now; a row lives until its message is confirmed.';
COMMENT ON COLUMN {outbox}.ready.suspicion IS
    'How often a channel died with this message on it; such rows are published alone.';
COMMENT ON COLUMN {outbox}.ready.lease IS
    'The claim that holds the row; failures of an older claim are ignored.';
COMMENT ON COLUMN {outbox}.ready.lease_until IS
    'When another relay may claim the row, by the clock of this server.';
COMMENT ON TABLE {outbox}.parked IS
    'Private: messages that wait for their time (scheduled, retry) or for a person (dead).';
COMMENT ON TABLE {outbox}.receipt IS 'Private: when each batch was confirmed.';
"""


def upgrade() -> None:
    """Create the tables and the trigger that makes work of an inserted message."""
    schema = schema_of("outbox")
    slots = "".join(
        f"CREATE TABLE {schema}.message_{n} PARTITION OF {schema}.message FOR VALUES IN ({n});"
        for n in range(SLOTS)
    )
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    for part in (TABLES, slots, TRIGGER, COMMENTS):
        op.execute(part.replace("{outbox}", schema))


def downgrade() -> None:
    """Drop the outbox and everything in it, sent or not."""
    op.execute(
        """
        DROP TABLE {outbox}.message, {outbox}.ready, {outbox}.parked, {outbox}.receipt;
        DROP FUNCTION {outbox}.make_work;
        """.replace("{outbox}", schema_of("outbox"))
    )
