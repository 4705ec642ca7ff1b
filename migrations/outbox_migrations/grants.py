"""Roles that can do their job and nothing else.

A producer inserts; a relay works off rows but cannot change a body; an inspector sees no payload;
a worker keeps the inbox. People at a console are viewers, who see no payload either; readers, who
do; and operators, who may act, and leave a record of it.
"""

from typing import Final

import sqlalchemy

from outbox_migrations.commands import Which, components
from outbox_migrations.components import Component
from outbox_migrations.database import transaction
from outbox_migrations.errors import MigrationError

#: Created when they are missing. Grant them to your login roles: GRANT outbox_relay TO my_relay.
ROLES: Final = {
    "outbox": (
        "outbox_producer",
        "outbox_relay",
        "outbox_inspector",
        "outbox_viewer",
        "outbox_reader",
        "outbox_operator",
    ),
    "inbox": ("inbox_worker",),
}

CREATE_ROLE: Final = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$
"""

OUTBOX_GRANTS: Final = """
GRANT USAGE ON SCHEMA {outbox} TO outbox_producer, outbox_relay, outbox_inspector;

GRANT INSERT (message_id, task, exchange, routing_key, headers, properties, body, content_type,
              content_encoding, mandatory, declare, available_at, expires_at, ordering_key,
              dedup_key)
    ON {outbox}.message TO outbox_producer;
GRANT EXECUTE ON FUNCTION {outbox}.enqueue, {outbox}.default_queue, {outbox}.cancel,
    {outbox}.claim_dedup, {outbox}.is_stored TO outbox_producer;

GRANT SELECT ON ALL TABLES IN SCHEMA {outbox} TO outbox_relay;
GRANT SELECT ON SEQUENCE {outbox}.message_id_seq TO outbox_relay;
GRANT INSERT, UPDATE, DELETE ON {outbox}.ready, {outbox}.parked TO outbox_relay;
GRANT INSERT ON {outbox}.receipt, {outbox}.expiry, {outbox}.lane TO outbox_relay;
GRANT EXECUTE ON FUNCTION {outbox}.rough_count, {outbox}.count_few, {outbox}.retry,
    {outbox}.discard, {outbox}.replay, {outbox}.confirmed_portion, {outbox}.missing_among,
    {outbox}.find_missing,
    {outbox}.run_number, {outbox}.replay_rows, {outbox}.replay_message, {outbox}.purge,
    {outbox}.forget, {outbox}.bring_home, {outbox}.claim_lanes, {outbox}.restore_work,
    {outbox}.reschedule, {outbox}.acted, {outbox}.pause, {outbox}.resume, {outbox}.held_counts,
    {outbox}.routes, {outbox}.set_rate, {outbox}.take_tokens, {outbox}.confirms_of,
    {outbox}.renumber
    TO outbox_relay;

GRANT SELECT ON {outbox}.stats TO outbox_inspector;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, available_at, attempts)
    ON {outbox}.pending, {outbox}.scheduled, {outbox}.dead TO outbox_inspector;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, sent_at)
    ON {outbox}.sent TO outbox_inspector;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, available_at, attempts,
              expired_at)
    ON {outbox}.expired TO outbox_inspector;
GRANT SELECT ON {outbox}.missing, {outbox}.paused, {outbox}.route, {outbox}.rate
    TO outbox_inspector;
GRANT EXECUTE ON FUNCTION {outbox}.rough_count, {outbox}.count_few, {outbox}.find_missing,
    {outbox}.held_counts, {outbox}.routes TO outbox_inspector;
GRANT SELECT (id, slot, attempts, lease_until) ON {outbox}.ready TO outbox_inspector;
GRANT SELECT (id, slot, state, available_at, attempts) ON {outbox}.parked TO outbox_inspector;
GRANT SELECT (id, slot) ON {outbox}.lane, {outbox}.expiry TO outbox_inspector;
"""

#: Those of people. Reasons, receipts and keys are no payload; headers, arguments and bodies are.
PEOPLE_GRANTS: Final = """
GRANT USAGE ON SCHEMA {outbox} TO outbox_viewer, outbox_reader, outbox_operator;

GRANT SELECT ON {outbox}.stats, {outbox}.receipt, {outbox}.progress, {outbox}.action,
    {outbox}.paused, {outbox}.route, {outbox}.rate
    TO outbox_viewer, outbox_reader;
GRANT SELECT (id, slot, message_id, task, exchange, routing_key, content_type, content_encoding,
              mandatory, available_at, expires_at, created_at, ordering_key, dedup_key)
    ON {outbox}.message TO outbox_viewer;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, available_at, attempts,
              last_error)
    ON {outbox}.pending, {outbox}.scheduled, {outbox}.dead TO outbox_viewer;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, sent_at)
    ON {outbox}.sent TO outbox_viewer;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, available_at, attempts,
              last_error, expired_at)
    ON {outbox}.expired TO outbox_viewer;
GRANT SELECT ON {outbox}.message, {outbox}.pending, {outbox}.scheduled, {outbox}.dead,
    {outbox}.sent, {outbox}.expired TO outbox_reader;
GRANT SELECT ON {outbox}.ready, {outbox}.parked, {outbox}.lane, {outbox}.expiry
    TO outbox_viewer, outbox_reader;
GRANT EXECUTE ON FUNCTION {outbox}.rough_count, {outbox}.count_few, {outbox}.missing_portion,
    {outbox}.family, {outbox}.held_counts, {outbox}.routes, {outbox}.confirms_of
    TO outbox_viewer, outbox_reader;

GRANT EXECUTE ON FUNCTION {outbox}.act, {outbox}.pause, {outbox}.resume, {outbox}.set_rate
    TO outbox_operator;
"""

INBOX_GRANTS: Final = """
GRANT USAGE ON SCHEMA {inbox} TO inbox_worker;
GRANT SELECT, INSERT, UPDATE (result) ON {inbox}.processed TO inbox_worker;
GRANT SELECT ON {inbox}.receipt, {inbox}.watched TO inbox_worker;
GRANT EXECUTE ON FUNCTION {inbox}.purge, {inbox}.announce, {inbox}.beat, {inbox}.leave,
    {inbox}.note_receipts, {inbox}.watch, {inbox}.unfinished TO inbox_worker;

DO $$ DECLARE
    reader text;
BEGIN
    FOR reader IN SELECT rolname FROM pg_roles
                   WHERE rolname IN ('outbox_relay', 'outbox_inspector', 'outbox_viewer',
                                     'outbox_reader') LOOP
        EXECUTE 'GRANT USAGE ON SCHEMA {inbox} TO ' || quote_ident(reader);
        EXECUTE 'GRANT SELECT ON {inbox}.worker, {inbox}.receipt, {inbox}.watched TO '
            || quote_ident(reader);
        EXECUTE 'GRANT SELECT (message_id, task, processed_at) ON {inbox}.processed TO '
            || quote_ident(reader);
        EXECUTE 'GRANT EXECUTE ON FUNCTION {inbox}.unfinished TO ' || quote_ident(reader);
    END LOOP;
END $$;
"""

GRANTS: Final[dict[str, str]] = {"outbox": OUTBOX_GRANTS + PEOPLE_GRANTS, "inbox": INBOX_GRANTS}


def grant(database_url: str, schema: str = "outbox", component: Which = "both") -> tuple[str, ...]:
    """Create roles where they are missing, give each its rights, and return them.

    Of both components, one that this database does not have is passed over. Raises
    DatabaseUnreachable, or MigrationError where there is nothing to grant or the login may not.
    """
    wanted = components(component, schema)
    with transaction(database_url, "nothing was granted") as connection:
        there = [each for each in wanted if _is_there(connection, each)]
        if not there:
            names = " or ".join(each.schema for each in wanted)
            raise MigrationError(f"nothing was granted: there is no schema {names}")
        return tuple(role for each in there for role in _grant(connection, each))


def _is_there(connection: sqlalchemy.Connection, component: Component) -> bool:
    query = sqlalchemy.text("SELECT to_regnamespace(:schema) IS NOT NULL")
    return bool(connection.execute(query, {"schema": component.schema}).scalar_one())


def _grant(connection: sqlalchemy.Connection, component: Component) -> tuple[str, ...]:
    roles, grants = ROLES[component.name], GRANTS[component.name]
    schema = {component.name: component.quoted_schema}
    statements = [CREATE_ROLE.format(role=role) for role in roles] + [grants.format(**schema)]
    for statement in statements:
        # Without parameters a driver takes each % for what it is.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    return roles
