"""Tells Django of the models; it creates nothing. The schema comes from outbox_migrations."""
