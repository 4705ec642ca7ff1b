"""Whether the outbox is there, in a version this relay knows, and writable: first of all."""

from typing import Final

from outbox_relay.core.finding import Finding, ok, problem
from outbox_relay.operator.doctor.context import Context
from outbox_relay.operator.session import Session
from outbox_relay.postgres.session import SCHEMA_VERSIONS

TABLES: Final = [
    *("message", "ready", "parked", "lane", "receipt"),
    *("pending", "scheduled", "dead", "expired", "sent"),
]

READ_ONLY: Final = """
SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean
"""
EXISTS: Final = "SELECT to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL"
MISSING: Final = """
SELECT array_agg(name) FROM unnest(%(tables)s::text[]) AS expected (name)
WHERE to_regclass(format('%%I.%%I', %(schema)s::text, name)) IS NULL
"""
HAS_VERSION: Final = """
SELECT to_regprocedure(format('%%I.version()', %(schema)s::text)) IS NOT NULL
"""
VERSION: Final = "SELECT {outbox}.version()"
#: What outbox-migrate calls that version, where this login may read it.
REVISION: Final = """
SELECT format('%%I.schema_version', %(schema)s::text) AS name
WHERE has_table_privilege(
    to_regclass(format('%%I.schema_version', %(schema)s::text)), 'SELECT')
"""
REVISION_OF: Final = "SELECT min(version_num) FROM {outbox}.schema_version"


def check(context: Context) -> list[Finding]:
    """The schema, its tables and its version."""
    session, name = context.session, context.session.schema
    up = "run: outbox-migrate up"
    if not session.value(EXISTS, schema=name):
        text = f"there is no schema {name!r} in this database"
        return _unusable(text, f"{up}; or correct OUTBOX_SCHEMA or OUTBOX_DATABASE_URL")
    if missing := session.value(MISSING, schema=name, tables=TABLES):
        return _unusable(f"missing in schema {name!r}: {', '.join(missing)}", up)
    if not session.value(HAS_VERSION, schema=name):
        return _unusable(f"the schema {name!r} has no version()", up)
    version = session.value(VERSION)
    if version not in SCHEMA_VERSIONS:
        known = ", ".join(map(str, SCHEMA_VERSIONS))
        way_out = "upgrade outbox-relay" if version > max(SCHEMA_VERSIONS) else up
        text = f"the schema {name!r} has version {version}, this relay works with {known}"
        return _unusable(text, way_out)
    return [ok("schema", f"{name!r}, version {version}{_revision(session)}")]


def _revision(session: Session) -> str:
    if session.value(REVISION, schema=session.schema) is None:
        return ""
    return f" ({session.value(REVISION_OF)}, as outbox-migrate status has it)"


def check_writable(context: Context) -> list[Finding]:
    """Whether anything can be written."""
    if not context.session.value(READ_ONLY):
        return []
    return [
        problem(
            "database writable",
            "the database is read-only: a standby, or told so",
            "point OUTBOX_DATABASE_URL to the primary (target_session_attrs=read-write), or "
            "reset default_transaction_read_only",
        )
    ]


def _unusable(text: str, remedy: str) -> list[Finding]:
    return [problem("schema", text, remedy)]
