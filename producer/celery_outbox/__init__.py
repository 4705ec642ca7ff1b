"""Celery tasks written to a Postgres outbox, in the caller's own transaction."""
