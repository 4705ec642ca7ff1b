"""Create what forgets sent messages, and the version number that relays ask for.

Nothing here deletes a message that is not sent, and nothing waits for a lock under a producer.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations.components import schema_of

revision = "outbox_0004"
down_revision = "outbox_0003"
branch_labels = None

RETENTION = """
-- Empties one slot; what is not sent yet moves to the current slot first.
CREATE FUNCTION {outbox}.empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
DECLARE
    part constant text := format('message_%s', old);
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    kept bigint[];
    rows_then bigint;
BEGIN
    IF now_slot = old THEN RETURN 0; END IF;
    -- Waiting here would queue every producer and relay behind us; a later run tries again.
    PERFORM set_config('lock_timeout', '50ms', true);
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    IF EXISTS (SELECT FROM ready WHERE slot = old AND lease_until > now()) THEN RETURN 0; END IF;
    SELECT array_agg(id) INTO kept FROM (
        SELECT id FROM ready WHERE slot = old UNION ALL SELECT id FROM parked WHERE slot = old) w;
    IF cardinality(kept) > 10000 THEN
        RAISE NOTICE 'slot % still holds % messages to be sent', old, cardinality(kept);
        RETURN 0;
    END IF;
    UPDATE message SET slot = now_slot WHERE slot = old AND id = ANY (kept);
    UPDATE ready SET slot = now_slot WHERE id = ANY (kept);
    UPDATE parked SET slot = now_slot WHERE id = ANY (kept);
    -- A relay may have moved work between the two tables meanwhile: a later run tries again.
    IF EXISTS (SELECT FROM ready WHERE slot = old)
            OR EXISTS (SELECT FROM parked WHERE slot = old) THEN
        RAISE lock_not_available;
    END IF;
    SELECT greatest(reltuples, 0) INTO rows_then FROM pg_class WHERE oid = part::regclass;
    EXECUTE format('TRUNCATE %I', part);
    RETURN rows_then;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;

-- Forgets sent messages older than that. Whole slots go by TRUNCATE; single rows are deleted, at
-- most 10,000 a call, only when asked for (`exact`) or when a retention outlives the sixteen slots.
CREATE FUNCTION {outbox}.purge(older_than interval, exact boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    newest timestamptz;
    oldest timestamptz;
    gone bigint := 0;
    deleted bigint;
BEGIN
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        SELECT created_at INTO oldest FROM message WHERE slot = s ORDER BY id LIMIT 1;
        IF newest < horizon AND s <> extract(epoch FROM now())::bigint / 43200 % 16 THEN
            gone := gone + empty_slot(s::smallint);
        ELSIF oldest < horizon - (CASE WHEN exact THEN interval '0' ELSE interval '12h' END) THEN
            DELETE FROM message m WHERE m.slot = s AND m.id IN (
                SELECT o.id FROM message o
                WHERE o.slot = s AND o.created_at < horizon
                  AND NOT EXISTS (SELECT FROM ready r WHERE r.id = o.id)
                  AND NOT EXISTS (SELECT FROM parked p WHERE p.id = o.id)
                ORDER BY o.id LIMIT 10000);
            GET DIAGNOSTICS deleted = ROW_COUNT;
            gone := gone + deleted;
        END IF;
    END LOOP;
    DELETE FROM receipt WHERE sent_at < horizon - interval '12 hours';
    RETURN gone;
END $$;

-- Retention 0: what was confirmed leaves at once.
CREATE FUNCTION {outbox}.forget(slots smallint[], ids bigint[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
    WITH gone AS (
        DELETE FROM message m USING unnest($1, $2) AS done (slot, id)
        WHERE m.slot = done.slot AND m.id = done.id
          AND NOT EXISTS (SELECT FROM ready r WHERE r.id = m.id)
          AND NOT EXISTS (SELECT FROM parked p WHERE p.id = m.id)
        RETURNING 1
    ) SELECT count(*) FROM gone
$$;


COMMENT ON FUNCTION {outbox}.purge IS
    'Forgets sent messages older than that. Returns about how many.';

-- What the relay asks before it trusts this schema.
CREATE FUNCTION {outbox}.version() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1';

-- A function runs for everyone unless this is said; outbox-migrate grant gives each role its own.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {outbox} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {outbox}.version() TO PUBLIC;
"""


def upgrade() -> None:
    """Create the functions of retention."""
    op.execute(RETENTION.replace("{outbox}", schema_of("outbox")))


def downgrade() -> None:
    """Drop the functions of retention."""
    op.execute(
        """
        DROP FUNCTION {outbox}.purge, {outbox}.empty_slot, {outbox}.forget, {outbox}.version;
        """.replace("{outbox}", schema_of("outbox"))
    )
