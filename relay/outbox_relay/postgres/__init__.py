"""The outbox in Postgres: every statement, and a connection on which every wait ends."""
