"""One Alembic migration as an operation of a Django migration: the same SQL, the same versions.

So `outbox-migrate status` and a relay see no difference, and a schema that `outbox-migrate up`
made before is left as it is.
"""

import os
from typing import Any, Literal

from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types
from django.db.migrations.operations.base import (  # type: ignore[import-untyped]  # the same
    Operation,
)

from outbox_migrations import prerelease
from outbox_migrations.commands import step_sql
from outbox_migrations.components import Component


class AlembicRevision(Operation):  # type: ignore[misc]  # Django ships no types
    """Runs one migration of `outbox` or `inbox`, in the database of OUTBOX_DATABASE_ALIAS only."""

    reversible = True
    reduces_to_sql = True

    def __init__(self, component: Literal["outbox", "inbox"], revision: str) -> None:
        self.component = component
        self.revision = revision

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change no model: there are none."""

    def database_forwards(self, _app: str, schema_editor: Any, _from: Any, _to: Any) -> None:
        """Migrate, unless that was done already."""
        if not self._concerns(schema_editor):
            return
        if not schema_editor.collect_sql:
            version = self._version(schema_editor)
            prerelease.refuse(self._component(), version)
            if version is not None and version >= self.revision:  # numbered: names have an order
                return
        schema_editor.execute(step_sql(self._component(), self.revision), params=None)

    def database_backwards(self, _app: str, schema_editor: Any, _from: Any, _to: Any) -> None:
        """Take the migration back."""
        if self._concerns(schema_editor):
            sql = step_sql(self._component(), self.revision, down=True)
            schema_editor.execute(sql, params=None)

    def describe(self) -> str:
        """Return what `manage.py migrate --plan` shows."""
        return f"Alembic migration {self.revision}"

    def _component(self) -> Component:
        if self.component == "inbox":
            return Component("inbox", "inbox")
        chosen = getattr(settings, "OUTBOX_SCHEMA", None) or os.environ.get("OUTBOX_SCHEMA")
        return Component("outbox", str(chosen or "outbox"))

    def _concerns(self, schema_editor: Any) -> bool:
        if schema_editor.connection.vendor != "postgresql":
            return False  # such as the SQLite of a project's tests
        alias = getattr(settings, "OUTBOX_DATABASE_ALIAS", "default")
        return bool(schema_editor.connection.alias == alias)

    def _version(self, schema_editor: Any) -> str | None:
        """Return the version the schema has, as Alembic recorded it."""
        table = f"{self._component().quoted_schema}.schema_version"
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [table])
            if not cursor.fetchone()[0]:
                return None
            cursor.execute(f"SELECT version_num FROM {table}")
            if row := cursor.fetchone():
                return str(row[0])
            cursor.execute(f"DROP TABLE {table}")  # left by a downgrade; the SQL creates it anew
            return None
