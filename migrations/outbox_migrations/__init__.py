"""The Postgres schema of the outbox and the inbox, as Alembic migrations.

Apply them with the `outbox-migrate` command, from Python with `upgrade`, or from an Alembic
environment of your own whose `version_locations` list `outbox_migrations:outbox` and
`outbox_migrations:inbox`.
"""

from importlib.metadata import version

from outbox_migrations.commands import Status, downgrade, rebuild, sql, status, upgrade
from outbox_migrations.errors import DatabaseUnreachable, InvalidSetting, MigrationError
from outbox_migrations.grants import grant

__all__ = [
    "DatabaseUnreachable",
    "InvalidSetting",
    "MigrationError",
    "Status",
    "__version__",
    "downgrade",
    "grant",
    "rebuild",
    "sql",
    "status",
    "upgrade",
]

__version__ = version("outbox-migrations")
