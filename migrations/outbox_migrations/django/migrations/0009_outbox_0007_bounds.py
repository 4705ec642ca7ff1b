"""The Alembic migration outbox_0007."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs outbox_0007_bounds."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0008_outbox_0006_cheap_views")
    ]
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0007")]
