"""Make reading the views cheap on any backlog: each reads about as many rows as it shows.

A person looks during an incident, when a million rows wait and statistics are old. So no plan may
depend on statistics: every view begins with the narrow work rows, in an index's order, and looks
each message up. `docs/decisions/0008-views-without-statistics.md` has the reasons and what was
measured.

`{outbox}` stands for the schema's quoted name.
"""

from alembic import op

from outbox_migrations import redefined_by_lanes
from outbox_migrations.column_comments import comments
from outbox_migrations.components import schema_of
from outbox_migrations.outbox import outbox_0002_views as views

revision = "outbox_0006"
down_revision = "outbox_0005"
branch_labels = None

# Indexes for each state, instead of one for all: then state and order are settled by the choice of
# the index. NOT IN, because without statistics the planner takes `=` for one row in 200, and
# that many rows for so few that it reads them all; what it excludes, it takes for nearly none.
# `attempts` is in one index alone, so that asking for it asks for that index.
INDEXES = """
CREATE INDEX parked_retry ON {outbox}.parked (id) WHERE state NOT IN ('scheduled', 'dead');
CREATE INDEX parked_dead ON {outbox}.parked (id) WHERE state NOT IN ('scheduled', 'retry');
CREATE INDEX parked_scheduled ON {outbox}.parked (id, available_at)
    WHERE state NOT IN ('retry', 'dead');
CREATE INDEX parked_scheduled_at ON {outbox}.parked (available_at, id, attempts)
    WHERE state NOT IN ('retry', 'dead');
DROP INDEX {outbox}.parked_state;
CREATE INDEX receipt_highest ON {outbox}.receipt (upper(span));
"""

# A comparison with an expensive value is cheap only in an index, which computes it once; a plan
# that reads a table from end to end computes it for every row, and is not chosen.
BY_INDEX = """
CREATE FUNCTION {outbox}.by_index(value anyelement) RETURNS anyelement
LANGUAGE plpgsql STABLE COST 2000 AS 'BEGIN RETURN value; END';
"""

# The message of a work row. An outer join can only begin with the work row; but a condition on
# message_id, the one column shown as it is, makes it an inner join, which begins with the message
# that has that id. All other columns are wrapped, so that a condition on them does not. Compared
# with arrays of one, because neither a hash nor a merge join can do that: each would read all.
MESSAGE = """
    LEFT JOIN {outbox}.message m
           ON m.id = ANY (ARRAY[w.key]) AND m.slot = ANY (ARRAY[w.slot])
          AND w.key = ANY (ARRAY[{outbox}.by_index(m.id)])"""
THERE = "coalesce(m.id, 0) <> 0"
SHOWN = """w.id, m.message_id, coalesce(m.task, '') AS task,
           coalesce(m.exchange, '') AS exchange, coalesce(m.routing_key, '') AS routing_key,
           {args}, {kwargs},
           coalesce(m.created_at, '-infinity') AS created_at"""

# `kind` picks the branch's own condition; the others fold to false while planning. What is due and
# not promoted yet has no index in the order of ids: `id + 0` keeps the planner from wading through
# all that is not due, in search of one.
PENDING = """
CREATE OR REPLACE VIEW {outbox}.pending AS
    SELECT {shown},
           coalesce(w.available_at, m.available_at, m.created_at) AS available_at,
           w.attempts, w.last_error
    FROM (
        SELECT 'ready' AS kind, NULL AS state, id, id AS key, slot,
               NULL::timestamptz AS available_at, attempts, last_error FROM {outbox}.ready
        UNION ALL
        SELECT 'lane', NULL, id, id, slot, NULL, 0::smallint, NULL FROM {outbox}.lane
        UNION ALL
        SELECT 'retry', state, id, id, slot, available_at, attempts, last_error
            FROM {outbox}.parked
        UNION ALL
        SELECT 'due', state, id + 0, id, slot, available_at, attempts, last_error
            FROM {outbox}.parked
    ) w {message}
    WHERE w.key >= {outbox}.by_index(0)
      AND (w.kind = 'ready' OR w.kind = 'lane'
        OR w.kind = 'retry' AND w.state NOT IN ('scheduled', 'dead')
        OR w.kind = 'due' AND w.state NOT IN ('retry', 'dead') AND w.available_at <= now()
            AND w.available_at >= {outbox}.by_index('-infinity'::timestamptz)
            AND w.attempts >= {outbox}.by_index(0))
      AND {there};
"""

PARKED = """
CREATE OR REPLACE VIEW {outbox}.scheduled AS
    SELECT {shown}, w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM {outbox}.parked) w {message}
    WHERE w.state NOT IN ('retry', 'dead') AND w.available_at > {outbox}.by_index(now())
      AND w.key >= {outbox}.by_index(0) AND {there};

CREATE OR REPLACE VIEW {outbox}.dead AS
    SELECT {shown}, w.available_at, w.attempts, w.last_error
    FROM (SELECT id AS key, * FROM {outbox}.parked) w {message}
    WHERE w.state NOT IN ('scheduled', 'retry') AND w.key >= {outbox}.by_index(0)
      AND {there};
"""

# A message is sent when no work is left for it. Nothing above the highest confirmed id was ever
# sent: a backlog, which lies above it, is not even looked at.
SENT = """
CREATE OR REPLACE VIEW {outbox}.sent AS
    SELECT {shown},
           (SELECT max(r.sent_at) FROM {outbox}.receipt r
             WHERE r.span @> w.id AND w.id = ANY (r.ids)) AS sent_at
    FROM (SELECT id, id AS key, slot FROM {outbox}.message) w
    LEFT JOIN LATERAL (
        SELECT true AS waits FROM {outbox}.ready r WHERE r.id = w.id
        UNION ALL SELECT true FROM {outbox}.parked p WHERE p.id = w.id
        UNION ALL SELECT true FROM {outbox}.lane l WHERE l.id = w.id LIMIT 1) work ON true
    {message} AND w.slot = ANY (ARRAY[m.slot])
    WHERE w.key < {outbox}.by_index((
            SELECT coalesce(max(upper(r.span)), 9223372036854775807) FROM {outbox}.receipt r))
      AND NOT coalesce(work.waits, false) AND {there};
"""

STATS = """
CREATE OR REPLACE VIEW {outbox}.stats AS
    SELECT {outbox}.rough_count('{outbox}.ready', 'true')
             + {outbox}.rough_count('{outbox}.lane', 'true')
             + {outbox}.rough_count('{outbox}.parked',
                   $$state = 'retry' OR (state = 'scheduled' AND available_at <= now())$$)
               AS pending,
           {outbox}.rough_count('{outbox}.parked',
                   $$state = 'scheduled' AND available_at > now()$$) AS scheduled,
           {outbox}.rough_count('{outbox}.parked', $$state = 'dead'$$) AS dead,
           -- The lowest id stands for the oldest row: an index look-up instead of a sort.
           coalesce(clock_timestamp() - (
               SELECT min(coalesce(m.available_at, m.created_at)) FROM (
                   (SELECT id, slot FROM {outbox}.ready
                     WHERE id >= {outbox}.by_index(0) ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM {outbox}.lane
                     WHERE id >= {outbox}.by_index(0) ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM {outbox}.parked
                     WHERE state NOT IN ('scheduled', 'dead') AND id >= {outbox}.by_index(0)
                     ORDER BY id LIMIT 1)
                   UNION ALL
                   (SELECT id, slot FROM {outbox}.parked
                     WHERE state NOT IN ('retry', 'dead') AND available_at <= now()
                       AND available_at >= {outbox}.by_index('-infinity'::timestamptz)
                       AND id >= {outbox}.by_index(0) AND attempts >= {outbox}.by_index(0)
                     ORDER BY available_at LIMIT 1)) w
               JOIN {outbox}.message m
                 ON m.id = ANY (ARRAY[w.id]) AND m.slot = ANY (ARRAY[w.slot])),
               interval '0') AS oldest_pending_age;
"""

# Without statistics they would read the whole backlog to find the one message they are about.
STEERING = "".join(
    f"ALTER FUNCTION {{outbox}}.{name} SET enable_seqscan = off SET enable_bitmapscan = off"
    " SET enable_hashjoin = off SET enable_mergejoin = off;"
    for name in ("retry", "discard", "cancel")
)

COMMENTS = """
COMMENT ON VIEW {outbox}.pending IS
    'To be published: due, claimed at this moment, waiting in its lane or for another attempt.';
COMMENT ON VIEW {outbox}.sent IS
    'Confirmed by the broker, and not yet forgotten by retention. The newest: ORDER BY id DESC.';
"""

DOWN = """
DROP VIEW {outbox}.pending, {outbox}.scheduled, {outbox}.sent, {outbox}.dead, {outbox}.stats;
DROP FUNCTION {outbox}.by_index, {outbox}.rough_count;
DROP INDEX {outbox}.parked_retry, {outbox}.parked_dead, {outbox}.parked_scheduled,
    {outbox}.parked_scheduled_at, {outbox}.receipt_highest;
CREATE INDEX parked_state ON {outbox}.parked (state, id);
"""


UNSTEERING = "".join(
    f"ALTER FUNCTION {{outbox}}.{name} RESET enable_seqscan RESET enable_bitmapscan"
    " RESET enable_hashjoin RESET enable_mergejoin;"
    for name in ("retry", "discard", "cancel")
)


def upgrade() -> None:
    """Replace the views, keeping who may read them, and explain every column."""
    for part in (INDEXES, BY_INDEX, PENDING, PARKED, SENT, STATS, STEERING, COMMENTS):
        op.execute(_filled(part))
    op.execute(comments(schema_of("outbox")))


def downgrade() -> None:
    """Make the views as they were: `outbox-migrate grant` is needed anew."""
    op.execute(_filled(DOWN))
    op.execute(_filled(UNSTEERING))
    views.upgrade()
    op.execute(_filled(redefined_by_lanes.VIEWS))


def _filled(template: str) -> str:
    for name, text in (("shown", SHOWN), ("message", MESSAGE), ("there", THERE)):
        template = template.replace("{" + name + "}", text.strip())
    for name in ("args", "kwargs"):
        template = template.replace("{" + name + "}", views.SHORT.replace("{name}", name))
    return template.replace("{outbox}", schema_of("outbox"))
