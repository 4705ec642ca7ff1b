"""The Django app that `manage.py migrate` finds."""

from django.apps import AppConfig  # type: ignore[import-untyped]  # Django ships no types


class OutboxMigrationsConfig(AppConfig):  # type: ignore[misc]  # the same
    """Creates the schemas `outbox` and `inbox`, as `outbox-migrate up` would."""

    name = "outbox_migrations.django"
    label = "outbox_migrations"
    verbose_name = "Outbox schema"
