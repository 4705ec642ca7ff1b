"""Whether this login may do what the relay does. Asked of the catalog: nothing is tried."""

from dataclasses import dataclass
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem
from outbox_relay.operator.doctor.context import Context

#: What the relay's statements need; `outbox-migrate grant` gives it to the role outbox_relay.
TABLES: Final = {
    "message": "SELECT",
    "ready": "SELECT, INSERT, UPDATE, DELETE",
    "parked": "SELECT, INSERT, UPDATE, DELETE",
    "lane": "SELECT, INSERT",
    "receipt": "SELECT, INSERT",
    "stats": "SELECT",
}
FUNCTIONS: Final = ["claim_lanes", "forget", "purge", "rough_count"]

USAGE: Final = "SELECT has_schema_privilege(%(schema)s, 'USAGE')"

LACKING: Final = """
SELECT needed.privilege || ' on ' || needed.name AS lacking
FROM (SELECT name, unnest(string_to_array(privileges, ', ')) AS privilege
        FROM unnest(%(tables)s::text[], %(privileges)s::text[]) AS t (name, privileges)) needed
WHERE NOT has_table_privilege(format('%%I.%%I', %(schema)s::text, needed.name), needed.privilege)
UNION ALL
SELECT 'EXECUTE on ' || p.proname || '()'
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s AND p.proname = ANY (%(functions)s::text[])
  AND NOT has_function_privilege(p.oid, 'EXECUTE')
"""
WHO: Final = "SELECT current_user::text"
#: Whether it is for this login, and not for the owner, say, who sees all there is.
HIDING: Final = """
SELECT c.relname::text AS table FROM pg_class c
WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relrowsecurity
  AND has_table_privilege(c.oid, 'SELECT') AND row_security_active(c.oid)
ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Lack:
    """A right that is missing."""

    lacking: str


@dataclass(frozen=True, slots=True)
class Hiding:
    """A table with row level security."""

    table: str


def check(context: Context) -> list[Finding]:
    """Whether every right is there; names those that are not."""
    session = context.session
    who = session.value(WHO)
    if not session.value(USAGE, schema=session.schema):
        return [_lacking(who, [f"USAGE on schema {session.schema}"])]
    lacks = session.fetch(
        Lack,
        LACKING,
        schema=session.schema,
        tables=list(TABLES),
        privileges=list(TABLES.values()),
        functions=FUNCTIONS,
    )
    if lacks:
        return [_lacking(who, [lack.lacking for lack in lacks])]
    if hiding := session.fetch(Hiding, HIDING, schema=session.schema):
        return [_hidden(who, f"{session.schema}.{each.table}") for each in hiding]
    return [ok("privileges", f"{who} may do all that a relay does")]


def _lacking(who: str, lacks: list[str]) -> Finding:
    return problem(
        "privileges",
        f"{who} lacks {', '.join(lacks)}",
        f'run: outbox-migrate grant; then, as the owner: GRANT outbox_relay TO "{who}"',
    )


def _hidden(who: str, table: str) -> Finding:
    return problem(
        "privileges",
        f"row level security of {table} hides rows from {who}: no relay publishes anything",
        f'ALTER TABLE {table} DISABLE ROW LEVEL SECURITY, or: ALTER ROLE "{who}" BYPASSRLS',
    )
