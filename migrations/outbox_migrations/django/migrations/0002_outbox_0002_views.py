"""The Alembic migration outbox_0002."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs outbox_0002_views."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0001_outbox_0001_tables")
    ]
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0002")]
