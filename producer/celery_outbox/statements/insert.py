"""The one INSERT, in the words of each driver, and what its failures mean.

INSERT privilege is all it needs: no RETURNING, no ON CONFLICT.
"""

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from itertools import count
from operator import attrgetter
from typing import Any, Final

from celery_outbox.errors import OutboxNotReady, RowRefused, UnusableTarget
from celery_outbox.message import Filled, Message, Parcel

#: What every message has, and the column types.
COLUMNS: Final = {
    "message_id": "text",
    "task": "text",
    "exchange": "text",
    "routing_key": "text",
    "headers": "json",
    "properties": "json",
    "body": "bytea",
    "content_type": "text",
    "content_encoding": "text",
    "mandatory": "bool",
    "declare": "json",
    "available_at": "timestamptz",
    "expires_at": "timestamptz",
}
#: What few have: named only where one is given.
KEYS: Final = {"ordering_key": "text", "dedup_key": "text"}


class Insert:
    """An INSERT of messages with these columns, as text and with the values it takes."""

    def __init__(self, columns: dict[str, str]) -> None:
        self.values = attrgetter(*columns)
        names = ", ".join(columns)
        # With their types, or asyncpg would ask each new connection about the columns' domains.
        places = ", ".join(
            f"%b::{kind}" if kind == "bytea" else f"%s::{kind}" for kind in columns.values()
        )
        arrays = ", ".join(f"%b::{kind}[]" for kind in columns.values())
        #: A single row: cheaper to plan and to encode than arrays of one element.
        self.one = f"INSERT INTO {{schema}}.message ({names}) VALUES ({places})"
        #: Any number of rows in one statement whose text never changes, so it can stay prepared.
        #: Binary arrays are encoded four times as fast as text.
        self.many = f"INSERT INTO {{schema}}.message ({names}) SELECT * FROM unnest({arrays})"
        #: A single row, unless it was stored within so many seconds.
        self.once = (
            f"INSERT INTO {{schema}}.message ({names})"
            f" SELECT * FROM (VALUES ({places})) AS given ({names})"
            " WHERE NOT {schema}.is_stored(message_id, headers, body, %s::float8)"
        )


#: What messages sent in one go differ in.
VARYING: Final = Filled._fields


class InsertAlike:
    """An INSERT of messages that have all but a few of these columns in common."""

    def __init__(self, columns: dict[str, str]) -> None:
        common = {name: kind for name, kind in columns.items() if name not in VARYING}
        self.common = attrgetter(*common)
        names = ", ".join((*VARYING, *common))
        # Typed, as a SELECT would take them for text.
        values = ", ".join((*VARYING, *(f"%s::{kind}" for kind in common.values())))
        arrays = ", ".join(f"%b::{columns[name]}[]" for name in VARYING)
        self.text = (
            f"INSERT INTO {{schema}}.message ({names}) SELECT {values}"
            f" FROM unnest({arrays}) AS given ({', '.join(VARYING)})"
        )


PLAIN: Final = Insert(COLUMNS)
KEYED: Final = Insert(COLUMNS | KEYS)
PLAIN_ALIKE: Final = InsertAlike(COLUMNS)
KEYED_ALIKE: Final = InsertAlike(COLUMNS | KEYS)

# For each key, null or the id of the message with that key that is pending; see dedup.py.
CLAIM_DEDUP: Final = """
SELECT {schema}.claim_dedup(key, message_id)
FROM unnest(%b::text[], %b::text[]) AS wanted (key, message_id)
"""


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
    keyed = any(m.ordering_key is not None or m.dedup_key is not None for m in messages)
    insertion = KEYED if keyed else PLAIN
    if len(messages) == 1:
        return statement(insertion.one, schema, style), insertion.values(messages[0])
    columns = zip(*map(insertion.values, messages), strict=True)
    return statement(insertion.many, schema, style), tuple(list(column) for column in columns)


def insert_once(
    schema: str, message: Message, seconds: float, style: Style = Style.PSYCOPG
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that stores a message which was not stored within so many seconds."""
    insertion = PLAIN if message.ordering_key is None else KEYED
    return statement(insertion.once, schema, style), (*insertion.values(message), seconds)


def insert_alike(
    schema: str, like: Message, filled: Iterable[Filled], style: Style = Style.PSYCOPG
) -> tuple[str, tuple[Any, ...]]:
    """Return the statement that stores messages that are like one, and its parameters."""
    insertion = PLAIN_ALIKE if like.ordering_key is None else KEYED_ALIKE
    columns = (list(column) for column in zip(*filled, strict=True))
    return statement(insertion.text, schema, style), (*insertion.common(like), *columns)


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE with which the server refused, or None where it was not the server."""
    answer = _answer(error)
    return answer.sqlstate if getattr(answer, "severity", None) else None


def _answer(error: BaseException) -> Any:
    """Return what holds the server's answer, however many libraries wrapped the driver's error."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    return getattr(error, "diag", error)  # psycopg and psycopg2 keep it apart, asyncpg does not


def explain(error: Exception, schema: str, messages: Sequence[Parcel]) -> Exception:
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
        case "25P02":  # of a driver that cannot tell beforehand
            return UnusableTarget.about(
                target="The transaction", reason="it has failed and can only be rolled back"
            )
        case str(code) if code.startswith(("22", "23")):
            tasks = ", ".join(sorted({message.task for message in messages})[:5])
            constraint = _answer(error).constraint_name or f"of SQLSTATE {code}"
            return RowRefused.about(tasks=tasks, constraint=constraint)
    return error
