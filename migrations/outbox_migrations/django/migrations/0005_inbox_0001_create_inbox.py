"""The Alembic migration inbox_0001."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Runs inbox_0001_create_inbox."""

    dependencies: ClassVar[list[tuple[str, str]]] = [
        ("outbox_migrations", "0004_outbox_0004_retention")
    ]
    operations: ClassVar = [AlembicRevision("inbox", "inbox_0001")]
