"""Migrations of the schema that holds the outbox."""
