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
