"""The Postgres schema of the outbox and the inbox, as Alembic migrations."""
