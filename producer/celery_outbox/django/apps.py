"""The Django app."""

from importlib import import_module

from django.apps import AppConfig  # type: ignore[import-untyped]  # Django ships no types


class OutboxConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """Shows the outbox in the admin, and has Django's system checks look at what is sent."""

    name = "celery_outbox.django"
    label = "celery_outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks."""
        import_module("celery_outbox.django.checking")
