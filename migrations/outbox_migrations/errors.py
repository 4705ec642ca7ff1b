"""What can go wrong in a migration, said in one sentence that holds no password."""

import re

import psycopg
from psycopg.conninfo import conninfo_to_dict


class MigrationError(Exception):
    """Permanent: the migration did not run, or was rolled back whole."""


class InvalidSetting(MigrationError):
    """Permanent: a setting is missing or malformed; the message names it."""


class DatabaseUnreachable(MigrationError):
    """Transient: the database did not answer; nothing was changed."""


def checked_url(database_url: str) -> str:
    """The URL as libpq reads it: without SQLAlchemy's driver part, such as +asyncpg.

    Raises InvalidSetting where it is none. libpq's own complaint would repeat the password.
    """
    database_url = re.sub(r"^(postgres(?:ql)?)\+\w+://", r"\1://", database_url)
    try:
        conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        hint = "give postgresql://user@host:port/database, or host=... dbname=..."
        raise InvalidSetting(f"OUTBOX_DATABASE_URL is malformed: {hint}") from None
    return database_url


def first_line(error: Exception) -> str:
    """What a driver says first; further lines repeat rows and statements."""
    original = getattr(error, "orig", None) or error
    return str(original).strip().partition("\n")[0]
