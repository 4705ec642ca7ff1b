"""One Django migration for each Alembic migration, in the order they were written."""
