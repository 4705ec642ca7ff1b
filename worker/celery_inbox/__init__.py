"""Makes the database effects of a redelivered Celery task happen once."""
