"""The Alembic migration outbox_0001."""

from typing import ClassVar

from django.db import migrations  # type: ignore[import-untyped]  # Django ships no types

from outbox_migrations.django.operations import AlembicRevision


class Migration(migrations.Migration):  # type: ignore[misc]  # Django ships no types
    """Creates the outbox."""

    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar = [AlembicRevision("outbox", "outbox_0001")]
