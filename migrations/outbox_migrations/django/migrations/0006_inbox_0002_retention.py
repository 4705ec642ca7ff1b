"""The Alembic migration inbox_0002."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs inbox_0002_retention."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0005_inbox_0001_create_inbox")
    ]
    operations: ClassVar = [AlembicRevision("inbox", "inbox_0002")]
