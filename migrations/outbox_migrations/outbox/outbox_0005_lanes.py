"""Order within a key: messages with an ordering key wait in lanes, and leave them one at a time.

At most one message of a key is among the work (`ready`, or `parked` for another attempt); all
others of that key are in `lane`. Only `claim_lanes`, which one relay at a time can run, takes the
next one out. Every way the work can lose a message (confirmed, given up, discarded, deleted by
hand) leaves word of its key in `lane_news`: no lane is ever forgotten, and none looked at without
need. `docs/decisions/0006-lanes.md` has the reasons.

And of messages with the same `dedup_key` one is pending at a time: see `outbox_migrations.dedup`.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations import dedup
from outbox_migrations.components import schema_of
from outbox_migrations.outbox import outbox_0001_tables as tables
from outbox_migrations.outbox import outbox_0002_views as views
from outbox_migrations.outbox import outbox_0003_functions as functions
from outbox_migrations.outbox import outbox_0004_retention as retention
from outbox_migrations.redefined_by_lanes import RETENTION, STEERING, VIEWS

revision = "outbox_0005"
down_revision = "outbox_0004"
branch_labels = None

# Adding a column that may be null touches no row. Lengths are checked where the keys are used: a
# constraint on `message` would have to be verified for every row there is.
TABLES = """
ALTER TABLE {outbox}.message ADD COLUMN ordering_key text, ADD COLUMN dedup_key text;
ALTER TABLE {outbox}.ready ADD COLUMN lane text;
ALTER TABLE {outbox}.parked ADD COLUMN lane text;
CREATE INDEX ready_lane ON {outbox}.ready (lane) WHERE lane IS NOT NULL;
CREATE INDEX parked_lane ON {outbox}.parked (lane) WHERE lane IS NOT NULL AND state = 'retry';

CREATE TABLE {outbox}.lane (
    id   bigint PRIMARY KEY,
    slot smallint NOT NULL,
    key  text NOT NULL,
    CONSTRAINT ordering_key_is_short CHECK (octet_length(key) BETWEEN 1 AND 200)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX lane_key ON {outbox}.lane (key, id);

CREATE TABLE {outbox}.lane_news (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

-- Whoever holds its only row is the one that may take messages out of lanes.
CREATE TABLE {outbox}.lane_gate ();
INSERT INTO {outbox}.lane_gate DEFAULT VALUES;
"""

# What nearly every message needs comes first, and costs what it did.
TRIGGERS = """
CREATE OR REPLACE FUNCTION {outbox}.make_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
DECLARE
    claimed record;
BEGIN
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

CREATE FUNCTION {outbox}.joined_lane() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
BEGIN
    INSERT INTO lane_news (key) SELECT DISTINCT key FROM joined;
    RETURN NULL;
END $$;
CREATE TRIGGER joined_lane AFTER INSERT ON {outbox}.lane
    REFERENCING NEW TABLE AS joined
    FOR EACH STATEMENT EXECUTE FUNCTION {outbox}.joined_lane();

-- Also where the message only moved, from one attempt to the wait for the next: then the news finds
-- its lane still taken, and is forgotten.
CREATE FUNCTION {outbox}.left_work() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
BEGIN
    INSERT INTO lane_news (key) VALUES (OLD.lane);
    RETURN NULL;
END $$;
CREATE TRIGGER left_work AFTER DELETE ON {outbox}.ready
    FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION {outbox}.left_work();
CREATE TRIGGER left_work AFTER DELETE ON {outbox}.parked
    FOR EACH ROW WHEN (OLD.lane IS NOT NULL) EXECUTE FUNCTION {outbox}.left_work();
"""

CLAIM = """
-- Takes the next message out of each lane there is news of, and leases it: `claim`, for `term`
-- seconds. Looks at `most` news above `above`, or fewer; `news` are those it looked at. News of a
-- lane whose first message somebody holds (about to cancel it, say) is kept for another time.
CREATE FUNCTION {outbox}.claim_lanes(
    above bigint, most integer, claim bigint, term double precision,
    OUT news bigint[], OUT ids bigint[], OUT slots smallint[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
BEGIN
    PERFORM FROM lane_news n WHERE n.id > above LIMIT 1;
    IF NOT FOUND THEN RETURN; END IF;
    PERFORM FROM lane_gate FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN RETURN; END IF;
    -- A statement of its own, begun behind the gate: it sees all that was taken out before.
    WITH heard AS MATERIALIZED (
        SELECT n.id, n.key FROM lane_news n WHERE n.id > above ORDER BY n.id LIMIT most
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
            FOR UPDATE SKIP LOCKED))
        RETURNING id, slot, key
    ), held AS MATERIALIZED (
        SELECT head.key FROM head WHERE head.id <> ALL (ARRAY(SELECT gone.id FROM gone))
    ), done AS (
        DELETE FROM lane_news WHERE id = ANY (ARRAY(
            SELECT heard.id FROM heard WHERE heard.key <> ALL (ARRAY(SELECT held.key FROM held))))
    ), made AS (
        INSERT INTO ready (id, slot, lane, lease, lease_until)
        SELECT id, slot, key, claim, now() + term * interval '1 second' FROM gone
        ON CONFLICT (id) DO NOTHING RETURNING id, slot
    )
    SELECT (SELECT array_agg(heard.id) FROM heard), array_agg(made.id), array_agg(made.slot)
    INTO news, ids, slots FROM made;
END $$;
"""

COMMENTS = """
COMMENT ON COLUMN {outbox}.message.ordering_key IS
    'Messages with the same key are published one after another. Null: in no order.';
COMMENT ON COLUMN {outbox}.message.dedup_key IS
    'Stored only while no other message with this key was pending. Null: always stored.';
COMMENT ON TABLE {outbox}.lane IS
    'Private: messages that wait for others with the same ordering key.';
COMMENT ON TABLE {outbox}.lane_news IS
    'Private: ordering keys whose next message may have to be taken out of its lane.';
COMMENT ON TABLE {outbox}.lane_gate IS
    'Private: its only row is locked by whoever takes messages out of lanes.';
COMMENT ON FUNCTION {outbox}.claim_lanes IS
    'Private: leases the next message of each lane there is news of.';

REVOKE EXECUTE ON FUNCTION {outbox}.joined_lane, {outbox}.left_work, {outbox}.claim_lanes
    FROM PUBLIC;
"""

# Whoever did without lanes what needs a right of its own with them, has that right as well: until
# `outbox-migrate grant` is run again, nothing stops.
GRANTS = """
DO $$
DECLARE
    needed record;
BEGIN
    FOR needed IN
        SELECT DISTINCT a.grantee, more.privilege
        FROM (SELECT attrelid AS relation, attname, attacl AS acl FROM pg_attribute
              UNION ALL SELECT oid, NULL, relacl FROM pg_class) had,
             aclexplode(had.acl) a,
             (VALUES ('message', 'message_id', 'INSERT',
                      'INSERT (ordering_key, dedup_key) ON {outbox}.message'),
                     ('message', 'message_id', 'INSERT',
                      'EXECUTE ON FUNCTION {outbox}.claim_dedup'),
                     ('ready', 'id', 'SELECT', 'SELECT (id, slot) ON {outbox}.lane'),
                     ('ready', NULL, 'SELECT', 'SELECT (id, slot) ON {outbox}.lane'),
                     ('ready', NULL, 'INSERT', 'SELECT, INSERT ON {outbox}.lane'),
                     ('ready', NULL, 'INSERT', 'SELECT ON {outbox}.lane_news'),
                     ('ready', NULL, 'INSERT', 'EXECUTE ON FUNCTION {outbox}.claim_lanes'))
             more (relation, attname, had, privilege)
        WHERE had.relation = ('{outbox}.' || more.relation)::regclass
          AND had.attname IS NOT DISTINCT FROM more.attname
          AND a.privilege_type = more.had
    LOOP
        EXECUTE format('GRANT %s TO %s', needed.privilege,
                       CASE needed.grantee WHEN 0 THEN 'PUBLIC'
                       ELSE needed.grantee::regrole::text END);
    END LOOP;
END $$;
"""

# What waits in lanes is published in no order from then on; nothing is lost.
OPEN_LANES = """
INSERT INTO {outbox}.ready (id, slot) SELECT id, slot FROM {outbox}.lane;
DROP VIEW {outbox}.pending, {outbox}.scheduled, {outbox}.sent, {outbox}.dead, {outbox}.stats;
DROP TRIGGER make_work ON {outbox}.message;
DROP TRIGGER left_work ON {outbox}.ready;
DROP TRIGGER left_work ON {outbox}.parked;
DROP TABLE {outbox}.lane, {outbox}.lane_news, {outbox}.lane_gate;
DROP FUNCTION {outbox}.make_work, {outbox}.joined_lane, {outbox}.left_work, {outbox}.claim_lanes,
    {outbox}.rough_count, {outbox}.retry, {outbox}.discard, {outbox}.cancel, {outbox}.replay,
    {outbox}.purge, {outbox}.empty_slot, {outbox}.forget, {outbox}.version;
ALTER TABLE {outbox}.message DROP COLUMN ordering_key, DROP COLUMN dedup_key;
ALTER TABLE {outbox}.ready DROP COLUMN lane;
ALTER TABLE {outbox}.parked DROP COLUMN lane;
"""


def upgrade() -> None:
    """Create the lanes, and teach everything that looks at waiting messages to look there too."""
    lanes = (TABLES, TRIGGERS, CLAIM, VIEWS, STEERING, RETENTION, COMMENTS)
    keys = (dedup.TABLE, dedup.FUNCTIONS, dedup.ENQUEUE, dedup.COMMENTS)
    for part in (*lanes, *keys, GRANTS):
        op.execute(part.replace("{outbox}", schema_of("outbox")))


def downgrade() -> None:
    """Drop the lanes, and make everything else as it was: `outbox-migrate grant` is needed anew."""
    for part in (OPEN_LANES, dedup.DROP, tables.TRIGGER, functions.ENQUEUE, functions.STEERING):
        op.execute(part.replace("{outbox}", schema_of("outbox")))
    views.upgrade()
    retention.upgrade()
