"""Three roles that can do their job and nothing else.

A producer inserts; a relay works off rows but cannot change a body; an inspector sees no payload.
"""

from typing import Final

import psycopg
from psycopg import sql

from outbox_migrations.components import Component
from outbox_migrations.errors import (
    DatabaseUnreachable,
    MigrationError,
    checked_url,
    first_line,
)

#: Created when they are missing. Grant them to your login roles: GRANT outbox_relay TO my_relay.
ROLES: Final = ("outbox_producer", "outbox_relay", "outbox_inspector")

CREATE_ROLE: Final = """
DO $$ BEGIN
    CREATE ROLE {role} NOLOGIN;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$
"""

GRANTS: Final = """
GRANT USAGE ON SCHEMA {outbox} TO outbox_producer, outbox_relay, outbox_inspector;

GRANT INSERT (message_id, task, exchange, routing_key, headers, properties, body, content_type,
              content_encoding, mandatory, declare, available_at, expires_at)
    ON {outbox}.message TO outbox_producer;
GRANT EXECUTE ON FUNCTION {outbox}.enqueue, {outbox}.cancel TO outbox_producer;

GRANT SELECT ON ALL TABLES IN SCHEMA {outbox} TO outbox_relay;
GRANT INSERT, UPDATE, DELETE ON {outbox}.ready, {outbox}.parked TO outbox_relay;
GRANT INSERT ON {outbox}.receipt TO outbox_relay;
GRANT EXECUTE ON FUNCTION {outbox}.rough_count, {outbox}.retry, {outbox}.discard, {outbox}.replay,
    {outbox}.purge, {outbox}.forget TO outbox_relay;

GRANT SELECT ON {outbox}.stats TO outbox_inspector;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, available_at, attempts)
    ON {outbox}.pending, {outbox}.scheduled, {outbox}.dead TO outbox_inspector;
GRANT SELECT (id, message_id, task, exchange, routing_key, created_at, sent_at)
    ON {outbox}.sent TO outbox_inspector;
GRANT EXECUTE ON FUNCTION {outbox}.rough_count TO outbox_inspector;
GRANT SELECT (id, slot, attempts, lease_until) ON {outbox}.ready TO outbox_inspector;
GRANT SELECT (id, slot, state, available_at, attempts) ON {outbox}.parked TO outbox_inspector;
"""


def grant(database_url: str, schema: str = "outbox") -> None:
    """Create the three roles where they are missing and give each its rights on `schema`.

    Raises DatabaseUnreachable, or MigrationError where the login may not create or grant.
    """
    outbox = sql.Identifier(Component("outbox", schema).schema)
    try:
        with psycopg.connect(checked_url(database_url), connect_timeout=10) as connection:
            for role in ROLES:
                connection.execute(sql.SQL(CREATE_ROLE).format(role=sql.Identifier(role)))
            connection.execute(sql.SQL(GRANTS).format(outbox=outbox))
    except psycopg.OperationalError as error:
        raise DatabaseUnreachable(f"the database did not answer: {first_line(error)}") from error
    except psycopg.Error as error:
        raise MigrationError(f"nothing was granted: {first_line(error)}") from error
