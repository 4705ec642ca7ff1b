"""Databases made before the first release: told apart, and rebuilt without losing a row.

Until then the schema was a chain of seven and two migrations, which the first release replaced by
one for each component. `rebuild` makes today's schema beside the old one, copies every row, and
drops the old one, all in one transaction. Producers, relays and workers wait for its locks.
"""

from typing import Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from outbox_migrations.components import Component
from outbox_migrations.errors import MigrationError
from outbox_migrations.schema_files import filled

#: The versions of the old chain, oldest first; only the newest can be rebuilt.
BEFORE: Final = {
    "outbox": tuple(f"outbox_000{number}" for number in range(2, 8)),
    "inbox": ("inbox_0002",),
}
#: What holds rows.
TABLES: Final = {
    "outbox": ("message", "receipt", "dedup", "ready", "parked", "lane", "lane_news"),
    "inbox": ("processed",),
}

#: Messages are copied without the trigger that makes work of them: their work is copied as well.
MAKE_NO_WORK: Final = "ALTER TABLE outbox.message DISABLE TRIGGER make_work"
MAKE_WORK: Final = "ALTER TABLE outbox.message ENABLE ALWAYS TRIGGER make_work"
#: The columns that both have.
COLUMNS: Final = """
SELECT string_agg(quote_ident(n.attname), ', ')
FROM pg_attribute n JOIN pg_attribute o USING (attname)
WHERE n.attrelid = to_regclass(:new) AND o.attrelid = to_regclass(:old)
  AND n.attnum > 0 AND NOT n.attisdropped AND NOT o.attisdropped
"""
#: Then a receipt named its messages by id alone: of several with one id it was of the newest that
#: was there. What retention has forgotten since is in no slot, and in no receipt any more.
COPY_RECEIPTS: Final = """
INSERT INTO {new} (slot, sent_at, span, ids)
SELECT m.slot, r.sent_at, int8range(min(m.id), max(m.id), '[]'), array_agg(m.id)
FROM {old} r CROSS JOIN LATERAL unnest(r.ids) AS done (id) JOIN outbox.message m ON m.id = done.id
WHERE NOT EXISTS (
    SELECT FROM outbox.message o WHERE o.id = m.id AND o.slot <> m.slot
    AND CASE WHEN m.created_at <= r.sent_at
        THEN o.created_at > m.created_at AND o.created_at <= r.sent_at
        ELSE o.created_at < m.created_at END)
GROUP BY r.ctid, r.sent_at, m.slot
"""
#: Numbers go on where they were. NULL for a table without any.
SEQUENCE: Final = "SELECT pg_get_serial_sequence(:table, 'id')"


def refuse(component: Component, found: str | None) -> None:
    """Raise MigrationError where `found` is a version of before the first release."""
    if found in BEFORE[component.name]:
        raise MigrationError(
            f"schema {component.schema} has version {found}, from before the first release:"
            " stop what uses it and run outbox-migrate rebuild, which keeps every message"
        )


def rebuild(connection: sqlalchemy.Connection, component: Component, config: Config) -> None:
    """Replace the old schema by today's, with every row. Raises MigrationError.

    `connection` is in a transaction; `config` is Alembic's, for this component.
    """
    name, schema = component.name, component.quoted_schema
    old = Component(name, f"{component.schema[:55]}_before").quoted_schema
    found = connection.execute(
        text(f"SELECT version_num FROM {schema}.schema_version")
    ).scalar_one_or_none()
    if found != BEFORE[name][-1]:
        raise MigrationError(
            f"schema {component.schema} has version {found or 'none'}: only {BEFORE[name][-1]},"
            " the newest from before the first release, can be rebuilt"
        )
    connection.execute(text(f"ALTER SCHEMA {schema} RENAME TO {old}"))
    command.upgrade(config, "head")
    if name == "outbox":
        connection.execute(text(filled(MAKE_NO_WORK, name, schema)))
    for table in TABLES[name]:
        if table == "ready":
            connection.execute(text(f"ALTER TABLE {old}.ready RENAME COLUMN lease TO claim_id"))
        if table == "receipt":
            copied = COPY_RECEIPTS.format(old=f"{old}.receipt", new=f"{schema}.receipt")
            connection.execute(text(filled(copied, name, schema)))
        else:
            _copy(connection, f"{old}.{table}", f"{schema}.{table}")
    if name == "outbox":
        connection.execute(text(filled(MAKE_WORK, name, schema)))
    connection.execute(text(f"DROP SCHEMA {old} CASCADE"))


def _copy(connection: sqlalchemy.Connection, old: str, new: str) -> None:
    """Copy the rows of a table, with the numbers that they have."""
    columns = connection.execute(text(COLUMNS), {"old": old, "new": new}).scalar_one()
    if new.endswith(".lane_news"):
        connection.execute(text(f"DELETE FROM {new}"))  # of the lanes that were just copied
    connection.execute(
        text(f"INSERT INTO {new} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {old}")
    )
    before, after = (
        connection.execute(text(SEQUENCE), {"table": table}).scalar_one_or_none()
        if table.endswith((".message", ".lane_news"))
        else None
        for table in (old, new)
    )
    if before and after:
        connection.execute(
            text(f"SELECT setval(:after, last_value, is_called) FROM {before}"), {"after": after}
        )
