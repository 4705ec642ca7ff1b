"""Create the views people read: pending, scheduled, sent, dead, stats.

The first four are disjoint and together every message kept. Reading `stats` is cheap on any
backlog.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations.components import schema_of

revision = "outbox_0002"
down_revision = "outbox_0001"
branch_labels = None

# Some escapes are legal in json and impossible in text: NUL, and half a surrogate pair. One such
# row must not make a view unreadable, so its arguments are not shown.
SHORT = r"""CASE
              WHEN m.headers::text !~* '\\u(0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])'
              THEN left(m.headers ->> '{name}repr', 200) END AS {name}"""

VIEWS = """
CREATE VIEW {outbox}.pending AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           {args}, {kwargs},
           m.created_at,
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT id, slot, NULL::timestamptz AS available_at, attempts, last_error
            FROM {outbox}.ready
        UNION ALL
        SELECT id, slot, available_at, attempts, last_error
            FROM {outbox}.parked
            WHERE state = 'retry' OR (state = 'scheduled' AND available_at <= now())
    ) w
    JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot;

CREATE VIEW {outbox}.scheduled AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           {args}, {kwargs},
           m.created_at, p.available_at, p.attempts, p.last_error
    FROM {outbox}.parked p
    JOIN {outbox}.message m ON m.id = p.id AND m.slot = p.slot
    WHERE p.state = 'scheduled' AND p.available_at > now();

CREATE VIEW {outbox}.dead AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           {args}, {kwargs},
           m.created_at, p.available_at, p.attempts, p.last_error
    FROM {outbox}.parked p
    JOIN {outbox}.message m ON m.id = p.id AND m.slot = p.slot
    WHERE p.state = 'dead';

-- A message is sent when no work is left for it; the receipt only says when. OFFSET 0 keeps the two
-- look-ups look-ups: as anti-joins they would read the whole backlog to show twenty rows.
CREATE VIEW {outbox}.sent AS
    SELECT m.id, m.message_id, m.task, m.exchange, m.routing_key,
           {args}, {kwargs},
           m.created_at,
           (SELECT max(r.sent_at) FROM {outbox}.receipt r
             WHERE r.span @> m.id AND m.id = ANY (r.ids)) AS sent_at
    FROM {outbox}.message m
    WHERE NOT EXISTS (SELECT FROM {outbox}.ready r WHERE r.id = m.id OFFSET 0)
      AND NOT EXISTS (SELECT FROM {outbox}.parked p WHERE p.id = m.id OFFSET 0);

-- Counts a table exactly while it is small, from a sample of its pages when it is not.
CREATE FUNCTION {outbox}.rough_count(source regclass, condition text) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    pages   bigint := pg_relation_size(source) / current_setting('block_size')::bigint;
    percent float8 := 100.0 * 1000 / greatest(pages, 1000);
    counted bigint;
BEGIN
    IF pages <= 1000 THEN
        EXECUTE format('SELECT count(*) FROM %s WHERE %s', source, condition) INTO counted;
        RETURN counted;
    END IF;
    EXECUTE format('SELECT count(*) FROM %s TABLESAMPLE SYSTEM (%s) WHERE %s',
                   source, percent, condition) INTO counted;
    RETURN round(counted * 100.0 / percent);
END $$;

CREATE VIEW {outbox}.stats AS
    SELECT {outbox}.rough_count('{outbox}.ready', 'true')
             + {outbox}.rough_count('{outbox}.parked',
                   $$state = 'retry' OR (state = 'scheduled' AND available_at <= now())$$)
               AS pending,
           {outbox}.rough_count('{outbox}.parked',
                   $$state = 'scheduled' AND available_at > now()$$) AS scheduled,
           {outbox}.rough_count('{outbox}.parked', $$state = 'dead'$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort.
           coalesce(clock_timestamp() - least(
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM {outbox}.ready ORDER BY id LIMIT 1) w
                  JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT coalesce(m.available_at, m.created_at)
                  FROM (SELECT id, slot FROM {outbox}.parked
                         WHERE state = 'retry' ORDER BY id LIMIT 1) w
                  JOIN {outbox}.message m ON m.id = w.id AND m.slot = w.slot),
               (SELECT available_at FROM {outbox}.parked
                 WHERE state <> 'dead' AND available_at <= now()
                 ORDER BY available_at LIMIT 1)), interval '0') AS oldest_pending_age;

COMMENT ON VIEW {outbox}.pending IS
    'To be published: due, claimed at this moment, or waiting for another attempt.';
COMMENT ON VIEW {outbox}.scheduled IS 'Held until available_at (eta or countdown).';
COMMENT ON VIEW {outbox}.sent IS 'Confirmed by the broker, and not yet forgotten by retention.';
COMMENT ON VIEW {outbox}.dead IS
    'Given up; last_error says why. outbox.retry(message_id) tries again, outbox.discard deletes.';
COMMENT ON VIEW {outbox}.stats IS
    'One row, cheap on any backlog: counts are exact to about 75,000 and sampled beyond.';
"""


def upgrade() -> None:
    """Create the views."""
    views = VIEWS.replace("{outbox}", schema_of("outbox"))
    for name in ("args", "kwargs"):
        views = views.replace("{" + name + "}", SHORT.replace("{name}", name))
    op.execute(views)


def downgrade() -> None:
    """Drop the views; no message is touched."""
    op.execute(
        """
        DROP VIEW {outbox}.pending, {outbox}.scheduled, {outbox}.sent, {outbox}.dead,
            {outbox}.stats;
        DROP FUNCTION {outbox}.rough_count;
        """.replace("{outbox}", schema_of("outbox"))
    )
