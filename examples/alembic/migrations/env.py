"""Runs the shop's migrations, and with them those of the outbox and the inbox."""

import os

from alembic import context
from sqlalchemy import create_engine

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
context.config.attributes["outbox_schema"] = os.environ.get("OUTBOX_SCHEMA", "outbox")

with create_engine(url).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
