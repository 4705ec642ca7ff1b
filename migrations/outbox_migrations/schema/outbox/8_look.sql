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

