"""The Alembic migration outbox_0006."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs outbox_0006_cheap_views."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0007_outbox_0005_lanes")
    ]
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0006")]
