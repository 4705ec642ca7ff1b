"""Tells Django of the five views, so that it has permissions for them. Creates nothing."""

from typing import Any, ClassVar

from django.db import migrations, models  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox.django.models import table


def view(name: str, last: list[tuple[str, Any]]) -> Any:
    """Return the operation for one view, whose last columns are its own."""
    columns = [
        ("id", models.BigIntegerField(primary_key=True, serialize=False)),
        *((column, models.TextField()) for column in _TEXT),
        ("args", models.TextField(null=True)),
        ("kwargs", models.TextField(null=True)),
        ("created_at", models.DateTimeField()),
    ]
    options = {
        "abstract": False,
        "db_table": table(name.lower()),
        "default_permissions": ("view", "manage"),
        "managed": False,
        "ordering": ["-id"],
        "verbose_name": f"{name.lower()} message",
        "verbose_name_plural": name.lower(),
    }
    return migrations.CreateModel(name=name, fields=columns + last, options=options)


_TEXT = ("message_id", "task", "exchange", "routing_key")


def unsent() -> list[tuple[str, Any]]:
    """Return the last columns of a view of unsent messages."""
    return [
        ("available_at", models.DateTimeField(null=True)),
        ("attempts", models.IntegerField()),
        ("last_error", models.TextField(null=True)),
    ]


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Five models, one for each view."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar = [
        view("Dead", unsent()),
        view("Expired", [*unsent(), ("expired_at", models.DateTimeField())]),
        view("Pending", unsent()),
        view("Scheduled", unsent()),
        view("Sent", [("sent_at", models.DateTimeField())]),
    ]
