"""The Alembic migration outbox_0004."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs outbox_0004_retention."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0003_outbox_0003_functions")
    ]
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0004")]
