"""Runs the shop's migrations, and with them those of the outbox and the inbox."""

import os

from alembic import context
from models import metadata
from sqlalchemy import create_engine

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
outbox = os.environ.get("OUTBOX_SCHEMA", "outbox")
context.config.attributes["outbox_schema"] = outbox


def include_name(name, type_, _parent_names):
    """Compare the shop's own schemas with its models, and leave ours alone."""
    return type_ != "schema" or name not in (outbox, "inbox")


with create_engine(url).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_schemas=True,
        include_name=include_name,
    )
    with context.begin_transaction():
        context.run_migrations()
