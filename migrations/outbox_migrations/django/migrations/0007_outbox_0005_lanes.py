"""The Alembic migration outbox_0005."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs outbox_0005_lanes."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0006_inbox_0002_retention")
    ]
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0005")]
