"""The one INSERT, and what its failures mean.

INSERT privilege is all it needs: no RETURNING, no ON CONFLICT.
"""

from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from psycopg import sql

from celery_outbox.errors import OutboxNotReady, RowRefused
from celery_outbox.message import Message

COLUMNS: Final = tuple(field.name for field in fields(Message))
values = attrgetter(*COLUMNS)

INSERT: Final = """
INSERT INTO {schema}.message (
    message_id, task, exchange, routing_key, headers, properties, body, content_type,
    content_encoding, mandatory, declare, available_at, expires_at
)
"""

# A single row: cheaper to plan and to encode than arrays of one element.
ONE: Final = INSERT + "VALUES (%s, %s, %s, %s, %s, %s, %b, %s, %s, %s, %s, %s, %s)"

# Any number of rows in one statement whose text never changes, so it can stay prepared. Binary
# arrays are encoded four times as fast as text.
MANY: Final = (
    INSERT
    + """
SELECT * FROM unnest(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::json[], %b::json[], %b::bytea[],
    %b::text[], %b::text[], %b::bool[], %b::json[], %b::timestamptz[], %b::timestamptz[]
)
"""
)


@lru_cache
def _statement(text: str, schema: str) -> bytes:
    return sql.SQL(text).format(schema=sql.Identifier(schema)).as_bytes(None)


def insert(schema: str, messages: Sequence[Message]) -> tuple[bytes, Sequence[Any]]:
    """Return the statement that stores `messages`, in their order, and its parameters."""
    if len(messages) == 1:
        return _statement(ONE, schema), values(messages[0])
    columns = zip(*map(values, messages), strict=True)
    return _statement(MANY, schema), [list(column) for column in columns]


def explain(error: Exception, schema: str, messages: Sequence[Message]) -> Exception:
    """Return what a failed INSERT means, or `error` itself where that is for the caller to handle.

    The database's own message is not repeated: it would print the payload of the failing row.
    """
    match getattr(error, "sqlstate", None):
        case "42P01" | "3F000":
            return OutboxNotReady.about(
                schema=schema,
                reason="its table `message` does not exist in this database",
                remedy="Run `outbox-migrate up` against it, or correct OUTBOX_SCHEMA",
            )
        case "42703" | "42804" | "42883":
            return OutboxNotReady.about(
                schema=schema,
                reason="its tables are of another version than this celery-outbox",
                remedy="Run `outbox-migrate up`, or install the celery-outbox of that version",
            )
        case "42501":
            return OutboxNotReady.about(
                schema=schema,
                reason="this database role may not use it",
                remedy="Run `outbox-migrate grant`, then GRANT outbox_producer TO the role",
            )
        case str(code) if code.startswith(("22", "23")):
            tasks = ", ".join(sorted({message.task for message in messages})[:5])
            diagnosis = getattr(error, "diag", None)
            constraint = getattr(diagnosis, "constraint_name", None) or f"of SQLSTATE {code}"
            return RowRefused.about(tasks=tasks, constraint=constraint)
    return error
