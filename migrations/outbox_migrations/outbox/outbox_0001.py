"""Create the outbox: tables, lanes, views and functions.

What it runs is `outbox_0001.sql`, complete in itself: a copy of `schema/outbox/` made by `make
baseline`, and never changed again once it was released.
"""

from alembic import op

from outbox_migrations.components import schema_of
from outbox_migrations.schema_files import filled, version

revision = "outbox_0001"
down_revision = None
branch_labels = ("outbox",)

#: What belongs to the tables goes with them. The functions of views go after the views.
DROP = """
DROP VIEW outbox.pending, outbox.scheduled, outbox.dead, outbox.expired, outbox.sent,
    outbox.stats, outbox.missing, outbox.paused, outbox.route,
    outbox.rate;
DROP TABLE outbox.message, outbox.ready, outbox.parked, outbox.receipt, outbox.expiry,
    outbox.lane, outbox.lane_news, outbox.dedup, outbox.progress, outbox.setting,
    outbox.action, outbox.hold, outbox.bucket;
DROP DOMAIN outbox.message_id, outbox.task, outbox.exchange, outbox.routing_key, outbox.headers,
    outbox.properties, outbox.body, outbox.content_type, outbox.content_encoding, outbox.declare,
    outbox.available_at, outbox.expires_at, outbox.created_at, outbox.ordering_key,
    outbox.dedup_key;
DROP FUNCTION outbox.is_replicating, outbox.restore_work, outbox.workless, outbox.confirms_of,
    outbox.make_work, outbox.joined_lane, outbox.left_work, outbox.claim_lanes, outbox.claim_dedup,
    outbox.is_message, outbox.is_stored,
    outbox.bell, outbox.ring, outbox.forget_dedup, outbox.by_index, outbox.short_repr,
    outbox.rough_count, outbox.count_few, outbox.cancel, outbox.retry, outbox.discard,
    outbox.replay, outbox.replay_message, outbox.send_again, outbox.sent_again, outbox.renumber,
    outbox.twins_at_work,
    outbox.bring_home, outbox.empty_slot, outbox.move_unsent, outbox.work_between,
    outbox.delete_sent, outbox.purge, outbox.forget, outbox.enqueue,
    outbox.default_queue, outbox.set_default_queue, outbox.act, outbox.acted,
    outbox.retry_rows, outbox.remove_rows, outbox.replay_rows, outbox.reschedule_rows,
    outbox.time_to_hold, outbox.reschedule, outbox.missing_portion, outbox.family,
    outbox.keep_actions, outbox.confirmed_portion, outbox.run_number, outbox.missing_among,
    outbox.find_missing, outbox.pause, outbox.resume, outbox.held_target, outbox.held_counts,
    outbox.routes, outbox.set_rate, outbox.take_tokens, outbox.version;
DROP TYPE outbox.changed;
"""


def upgrade() -> None:
    """Create everything in the configured schema."""
    schema = schema_of("outbox")
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    op.execute(filled(version("outbox", revision), "outbox", schema))


def downgrade() -> None:
    """Drop the outbox and everything in it, sent or not."""
    op.execute(filled(DROP, "outbox", schema_of("outbox")))
