"""Applies, reverts, prints and compares migrations; each component in a transaction of its own."""

import io
from dataclasses import dataclass
from typing import Final, Literal

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from outbox_migrations import prerelease
from outbox_migrations.components import Component
from outbox_migrations.database import transaction

Which = Literal["outbox", "inbox", "both"]

#: How a sentence begins that says why the server refused.
FAILED: Final = "the migration was rolled back"


@dataclass(frozen=True, slots=True)
class Status:
    """Where a component's schema stands; `found` is None where it was never migrated."""

    component: Component
    found: str | None
    newest: str

    @property
    def current(self) -> bool:
        """Whether nothing is left to migrate."""
        return self.found == self.newest


def components(which: Which, outbox_schema: str = "outbox") -> list[Component]:
    """The components that `which` names, in the order they are migrated."""
    known = [Component("outbox", outbox_schema), Component("inbox", "inbox")]
    return [c for c in known if which in (c.name, "both")]


def upgrade(database_url: str, schema: str = "outbox", component: Which = "both") -> None:
    """Migrate to the newest version. Running it again changes nothing.

    Raises MigrationError, naming the cause; a component then stays at the version it had.
    """
    for each in components(component, schema):
        with transaction(database_url, FAILED) as connection:
            prerelease.refuse(each, _found(connection, each))
            command.upgrade(_config(each, connection), "head")


def rebuild(database_url: str, schema: str = "outbox", component: Which = "both") -> None:
    """Replace schemas of before the first release by today's, keeping every row.

    Raises MigrationError where a schema is no such one; it is then as it was. Rights are to be
    granted anew.
    """
    for each in components(component, schema):
        with transaction(database_url, FAILED) as connection:
            prerelease.rebuild(connection, each, _config(each, connection))


def downgrade(database_url: str, schema: str = "outbox", component: Which = "both") -> None:
    """Remove the tables and everything in them, sent or not."""
    for each in components(component, schema):
        with transaction(database_url, FAILED) as connection:
            command.downgrade(_config(each, connection), "base")


def status(database_url: str, schema: str = "outbox", component: Which = "both") -> list[Status]:
    """Compare each component's schema with this package's migrations."""
    found = []
    for each in components(component, schema):
        with transaction(database_url, FAILED) as connection:
            newest = ScriptDirectory.from_config(_config(each)).get_current_head()
            found.append(Status(each, _found(connection, each), str(newest)))
    return found


def _found(connection: sqlalchemy.Connection, component: Component) -> str | None:
    context = MigrationContext.configure(
        connection,
        opts={"version_table": "schema_version", "version_table_schema": component.schema},
    )
    return context.get_current_revision()


def sql(schema: str = "outbox", component: Which = "both") -> str:
    """The SQL that `upgrade` would run on an empty database, for a person to review and apply."""
    printed = io.StringIO()
    for each in components(component, schema):
        command.upgrade(_config(each, output=printed), "head", sql=True)
    return printed.getvalue()


def step_sql(component: Component, revision: str, *, down: bool = False) -> str:
    """The SQL of one migration, or of what takes it back, for a transaction of somebody else's."""
    printed = io.StringIO()
    config = _config(component, output=printed)
    config.attributes["transactional"] = False
    before = ScriptDirectory.from_config(config).get_revision(revision).down_revision or "base"
    if down:
        command.downgrade(config, f"{revision}:{before}", sql=True)
    else:
        command.upgrade(config, f"{before}:{revision}", sql=True)
    return printed.getvalue()


def _config(
    component: Component,
    connection: sqlalchemy.Connection | None = None,
    output: io.StringIO | None = None,
) -> Config:
    config = Config(output_buffer=output) if output else Config()
    config.set_main_option("script_location", "outbox_migrations:")
    config.set_main_option("version_locations", component.version_location)
    config.set_main_option("path_separator", "space")
    config.attributes["component"] = component
    config.attributes["connection"] = connection
    config.attributes[f"{component.name}_schema"] = component.schema
    return config
