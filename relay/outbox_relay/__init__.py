"""Publishes the rows of a Postgres outbox; marks one sent once its broker has confirmed it."""
