"""Create the inbox: what was processed, and what forgets it.

What it runs is `inbox_0001.sql`, complete in itself: a copy of `schema/inbox/` made by `make
baseline`, and never changed again once it was released.
"""

from alembic import op

from outbox_migrations.components import schema_of
from outbox_migrations.schema_files import filled, version

revision = "inbox_0001"
down_revision = None
branch_labels = ("inbox",)

DROP = """
DROP TABLE inbox.processed, inbox.worker, inbox.receipt, inbox.watched;
DROP FUNCTION inbox.version, inbox.purge, inbox.finish, inbox.refuse_half, inbox.announce,
    inbox.beat, inbox.leave, inbox.weight, inbox.note_receipts, inbox.watch, inbox.unfinished;
"""


def upgrade() -> None:
    """Create the inbox in the configured schema."""
    schema = schema_of("inbox")
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    op.execute(filled(version("inbox", revision), "inbox", schema))


def downgrade() -> None:
    """Drop the inbox: redelivered messages will have their effects again."""
    op.execute(filled(DROP, "inbox", schema_of("inbox")))
