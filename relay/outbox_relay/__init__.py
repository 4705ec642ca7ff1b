"""Publishes the rows of a Postgres outbox to a broker, and marks them sent once it has confirmed."""
