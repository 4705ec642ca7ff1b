"""Which of Django's databases has the outbox."""

from celery import current_app

from celery_outbox import settings


def alias() -> str:
    """The database of the outbox."""
    return settings.django_alias(current_app) or "default"
