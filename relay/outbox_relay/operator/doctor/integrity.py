"""What others may have changed about the tables: triggers, replica identity, ids, what is kept.

A trigger that is off lets rows in that are never published. A published table whose rows cannot be
told apart refuses every DELETE, so that retention stops. A sequence that was set back gives ids
again.
"""

from dataclasses import dataclass
from typing import Final

from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.operator.doctor.context import Context
from outbox_relay.settings.durations import how_long

NAME: Final = "tables"
#: Sent messages this many times as old as retention allows, and an hour, should be gone.
LATE: Final = 2
HOUR: Final = 3600.0

TRIGGERS: Final = """
SELECT c.relname::text AS table, t.tgname::text AS name
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s))
  AND NOT t.tgisinternal AND t.tgenabled = 'D'
ORDER BY 1, 2
"""
ROLE: Final = "SELECT current_setting('session_replication_role')"
#: Tables of a publication that sends deletions, without anything to tell their rows by.
NAMELESS: Final = """
SELECT p.pubname::text AS name, c.relname::text AS table
FROM pg_publication_tables t
JOIN pg_publication p ON p.pubname = t.pubname AND (p.pubdelete OR p.pubupdate)
JOIN pg_namespace n ON n.nspname = t.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
WHERE t.schemaname = %(schema)s AND (c.relreplident = 'n' OR c.relreplident = 'd'
      AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))
ORDER BY 1, 2
"""
MAY_READ_IDS: Final = """
SELECT has_sequence_privilege('{outbox}.message_id_seq'::regclass, 'SELECT')
"""
#: In this order: what is inserted in between has a higher id, and none is above the sequence then.
IDS: Final = """
WITH newest AS MATERIALIZED (SELECT max(id) AS id FROM {outbox}.message)
SELECT newest.id AS newest, (SELECT last_value FROM {outbox}.message_id_seq) AS last FROM newest
"""
OLDEST_SENT: Final = """
SELECT extract(epoch FROM clock_timestamp() - min(sent_at))::float8 FROM {outbox}.receipt
WHERE sent_at > '-infinity'
"""


@dataclass(frozen=True, slots=True)
class Named:
    """Something of a table: a trigger, or the publication that it is in."""

    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Ids:
    """The highest id of a message, and the last that the sequence has given."""

    newest: int | None
    last: int


def check(context: Context) -> list[Finding]:
    """Triggers, replica identity, and whether retention keeps up."""
    session, schema = context.session, context.session.schema
    found = [
        problem(
            NAME,
            f"trigger {each.name} of {schema}.{each.table} is disabled: rows come in that are "
            "never published",
            f"ALTER TABLE {schema}.{each.table} ENABLE ALWAYS TRIGGER {each.name}",
        )
        for each in session.fetch(Named, TRIGGERS, schema=schema)
    ]
    if (role := session.value(ROLE)) == "replica":
        found.append(
            problem(
                NAME,
                f"session_replication_role is {role} for this login: triggers do not fire",
                "reset it for the login, the database or the server: it is for replication alone",
            )
        )
    found += [
        problem(
            NAME,
            f"{schema}.{each.table} is in publication {each.name} and has no replica identity: "
            "nothing can be deleted from it, and retention stops",
            f"ALTER TABLE {schema}.{each.table} REPLICA IDENTITY FULL, or leave it out of the "
            "publication",
        )
        for each in session.fetch(Named, NAMELESS, schema=schema)
    ]
    found += _ids(context) + _retention(context)
    return found or [ok(NAME, "triggers fire, rows can be deleted, retention keeps up")]


def _ids(context: Context) -> list[Finding]:
    session, schema = context.session, context.session.schema
    if not session.value(MAY_READ_IDS):
        return []
    (ids,) = session.fetch(Ids, IDS)
    if ids.newest is None or ids.last >= ids.newest:
        return []
    return [
        problem(
            NAME,
            f"{schema}.message_id_seq stands at {ids.last:,}, and there are messages up to "
            f"{ids.newest:,}: it was set back, or came by logical replication, and gives ids "
            "again; while one with that id is to be published, an INSERT fails",
            f"SELECT setval('{schema}.message_id_seq', (SELECT max(id) FROM {schema}.message))",
        )
    ]


def _retention(context: Context) -> list[Finding]:
    allowed, oldest = context.settings.retention, context.session.value(OLDEST_SENT)
    if oldest is None or oldest < LATE * allowed + HOUR:
        return []
    return [
        warn(
            NAME,
            f"the oldest sent message was sent {how_long(oldest)} ago, and OUTBOX_RETENTION is "
            f"{how_long(allowed)} here: it is larger for the relays, or purging does not progress",
            "see the relay's log for database_lost; then outbox-relay purge --older-than",
        )
    ]
