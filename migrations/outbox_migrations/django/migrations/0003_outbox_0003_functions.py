"""The Alembic migration outbox_0003."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs outbox_0003_functions."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0002_outbox_0002_views")
    ]
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0003")]
