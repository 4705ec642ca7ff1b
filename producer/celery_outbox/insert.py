"""The one INSERT, in the words of each driver, and what its failures mean.

INSERT privilege is all it needs: no RETURNING, no ON CONFLICT.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from enum import Enum
from functools import lru_cache
from itertools import count
from operator import attrgetter
from typing import Any, Final

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


# Takes a pending message back; false where it is too late. Needs no more than EXECUTE.
CANCEL: Final = "SELECT {schema}.cancel(%s)"


class Style(Enum):
    """How a driver marks the place of a parameter."""

    #: psycopg: %s, or %b for what is to be sent in binary.
    PSYCOPG = "psycopg"
    #: psycopg2, and Django whichever its driver: %s.
    FORMAT = "format"
    #: asyncpg: $1, $2 ...
    NUMBERED = "numbered"


@lru_cache
def statement(text: str, schema: str, style: Style = Style.PSYCOPG) -> str:
    """Return one of the statements above for `schema`, which is a plain identifier."""
    text = text.format(schema=f'"{schema}"')
    if style is Style.FORMAT:
        return text.replace("%b", "%s")
    if style is Style.NUMBERED:
        numbers = count(1)
        return re.sub("%[sb]", lambda _: f"${next(numbers)}", text)
    return text


def insert(
    schema: str, messages: Sequence[Message], style: Style = Style.PSYCOPG
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that stores `messages`, in their order, and its parameters."""
    if len(messages) == 1:
        return statement(ONE, schema, style), values(messages[0])
    columns = zip(*map(values, messages), strict=True)
    return statement(MANY, schema, style), tuple(list(column) for column in columns)


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE with which the server refused, or None where it was not the server."""
    answer = _answer(error)
    return answer.sqlstate if getattr(answer, "severity", None) else None


def _answer(error: BaseException) -> Any:
    """Return what holds the server's answer, however many libraries wrapped the driver's error."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return getattr(error, "diag", error)  # psycopg and psycopg2 keep it apart, asyncpg does not


def explain(error: Exception, schema: str, messages: Sequence[Message]) -> Exception:
    """Return what a failed INSERT means, or `error` itself where that is for the caller to handle.

    The database's own message is not repeated: it would print the payload of the failing row.
    """
    match sqlstate(error):
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
            constraint = _answer(error).constraint_name or f"of SQLSTATE {code}"
            return RowRefused.about(tasks=tasks, constraint=constraint)
    return error
