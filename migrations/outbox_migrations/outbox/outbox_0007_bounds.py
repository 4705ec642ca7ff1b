"""Bound what had no bound: two columns of a message, and how long retention holds its locks.

Receipts are no longer compressed: of what Postgres does for a message, that was a twelfth.

A relay holds a batch of messages in memory: of headers and bodies the table knew how large they may
be, of properties and declarations it did not.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations import redefined_by_lanes
from outbox_migrations.components import schema_of

revision = "outbox_0007"
down_revision = "outbox_0006"
branch_labels = None

# NOT VALID: what is there is not read, so that the lock is held for a moment only. It is too late
# to refuse it anyway.
CHECKS = """
ALTER TABLE {outbox}.message
    ADD CONSTRAINT properties_fit_a_frame
        CHECK (octet_length(properties::text) <= 131072) NOT VALID,
    ADD CONSTRAINT declare_is_short CHECK (octet_length(declare::text) <= 131072) NOT VALID;
"""

# Every refusal to empty the slot is an exception: it ends a subtransaction, and with it the lock.
# lock_timeout belongs to the function: what its caller does afterwards may wait again.
EMPTY_SLOT = """
CREATE OR REPLACE FUNCTION {outbox}.empty_slot(old smallint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {outbox}, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    part constant text := format('message_%s', old);
    now_slot constant smallint := (extract(epoch FROM now())::bigint / 43200 % 16)::smallint;
    kept bigint[];
    rows_then bigint;
BEGIN
    -- At any other level the snapshot is older than the lock: what came between them is not seen.
    IF now_slot = old OR current_setting('transaction_isolation') <> 'read committed' THEN
        RETURN 0;
    END IF;
    -- Waiting here would queue every producer and relay behind us; a later run tries again.
    EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', part);
    IF EXISTS (SELECT FROM ready WHERE slot = old AND lease_until > now()) THEN
        RAISE lock_not_available;
    END IF;
    SELECT array_agg(id) INTO kept FROM (
        SELECT id FROM ready WHERE slot = old UNION ALL SELECT id FROM parked WHERE slot = old
        UNION ALL SELECT id FROM lane WHERE slot = old) w;
    IF cardinality(kept) > 10000 THEN
        RAISE NOTICE 'slot % still holds % messages to be sent', old, cardinality(kept);
        RAISE lock_not_available;
    END IF;
    UPDATE message SET slot = now_slot WHERE slot = old AND id = ANY (kept);
    UPDATE ready SET slot = now_slot WHERE id = ANY (kept);
    UPDATE parked SET slot = now_slot WHERE id = ANY (kept);
    UPDATE lane SET slot = now_slot WHERE id = ANY (kept);
    -- A relay may have moved work between the tables meanwhile: a later run tries again.
    IF EXISTS (SELECT FROM ready WHERE slot = old)
            OR EXISTS (SELECT FROM parked WHERE slot = old)
            OR EXISTS (SELECT FROM lane WHERE slot = old) THEN
        RAISE lock_not_available;
    END IF;
    SELECT greatest(reltuples, 0) INTO rows_then FROM pg_class WHERE oid = part::regclass;
    EXECUTE format('TRUNCATE %I', part);
    RETURN rows_then;
EXCEPTION
    WHEN lock_not_available THEN
        RETURN 0;
    WHEN check_violation THEN
        -- From before the checks: it cannot be moved, and is kept where it is until it is sent.
        RAISE NOTICE 'slot % holds a message too large to be moved', old;
        RETURN 0;
END $$;
"""

# Slots are emptied last: their locks end with the transaction.
PURGE = """
CREATE OR REPLACE FUNCTION {outbox}.purge(
    older_than interval, exact boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {outbox}, pg_temp AS $$
DECLARE
    horizon constant timestamptz := now() - older_than;
    newest timestamptz;
    oldest timestamptz;
    over smallint[] := '{}';
    gone bigint := 0;
    deleted bigint;
BEGIN
    DELETE FROM receipt WHERE sent_at < horizon - interval '12 hours';
    PERFORM forget_dedup();
    FOR s IN 0..15 LOOP
        SELECT created_at INTO newest FROM message WHERE slot = s ORDER BY id DESC LIMIT 1;
        SELECT created_at INTO oldest FROM message WHERE slot = s ORDER BY id LIMIT 1;
        IF newest < horizon AND s <> extract(epoch FROM now())::bigint / 43200 % 16 THEN
            over := over || s::smallint;
        ELSIF oldest < horizon - (CASE WHEN exact THEN interval '0' ELSE interval '12h' END) THEN
            DELETE FROM message m WHERE m.slot = s AND m.id IN (
                SELECT o.id FROM message o
                WHERE o.slot = s AND o.created_at < horizon
                  AND NOT EXISTS (SELECT FROM ready r WHERE r.id = o.id)
                  AND NOT EXISTS (SELECT FROM parked p WHERE p.id = o.id)
                  AND NOT EXISTS (SELECT FROM lane l WHERE l.id = o.id)
                ORDER BY o.id LIMIT 10000);
            GET DIAGNOSTICS deleted = ROW_COUNT;
            gone := gone + deleted;
        END IF;
    END LOOP;
    FOR s IN 1..cardinality(over) LOOP
        gone := gone + empty_slot(over[s]);
    END LOOP;
    RETURN gone;
END $$;
"""

RECEIPTS = """
ALTER TABLE {outbox}.receipt ALTER COLUMN ids SET STORAGE EXTERNAL;
"""

DOWN = """
ALTER TABLE {outbox}.receipt ALTER COLUMN ids SET STORAGE EXTENDED;
ALTER TABLE {outbox}.message
    DROP CONSTRAINT properties_fit_a_frame, DROP CONSTRAINT declare_is_short;
"""


def upgrade() -> None:
    """Add the checks, replace what retention does, and let receipts be as they are."""
    for part in (CHECKS, EMPTY_SLOT, PURGE, RECEIPTS):
        op.execute(part.replace("{outbox}", schema_of("outbox")))


def downgrade() -> None:
    """Make it as it was."""
    for part in (DOWN, redefined_by_lanes.RETENTION):
        op.execute(part.replace("{outbox}", schema_of("outbox")))
