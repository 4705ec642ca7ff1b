"""Redis and Valkey: what Celery's workers expect there, confirmed as strongly as Redis can."""
