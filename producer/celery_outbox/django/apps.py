"""The Django app."""

from django.apps import AppConfig  # type: ignore[import-untyped]  # Django ships no types


class OutboxConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """Shows the outbox in the admin."""

    name = "celery_outbox.django"
    label = "celery_outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"
