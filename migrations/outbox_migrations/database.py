"""The database that is migrated, reached by the Postgres driver that is installed.

None is a dependency of this package: Django prefers psycopg 3 as soon as it is there, so a project
on psycopg2 would find itself on another driver.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import sqlalchemy

from outbox_migrations.errors import (
    DatabaseUnreachable,
    InvalidSetting,
    MigrationError,
    first_line,
)

#: What reads libpq's URLs and conninfos and waits for its answers, the one preferred first.
DRIVERS: Final = ("psycopg", "psycopg2")
#: How SQLAlchemy's URLs name a driver, asynchronous ones included.
WITH_DRIVER: Final = re.compile(r"^(postgres(?:ql)?)\+(\w+)://")

#: How long a host may take to answer, unless the URL says how long (`connect_timeout`).
CONNECT_TIMEOUT_SECONDS: Final = 10
#: A migration that cannot get its locks by then gives up instead of queueing writers behind it.
LOCK_TIMEOUT: Final = "10s"


@contextmanager
def transaction(database_url: str, failed: str) -> Iterator[sqlalchemy.Connection]:
    """One transaction on a connection of our own, with what the driver says turned into our words.

    `failed` begins the sentence about what the server refused. Raises InvalidSetting,
    DatabaseUnreachable or MigrationError.
    """
    driver = _driver(database_url)
    url, given = _libpq_url(database_url, driver)
    engine = sqlalchemy.create_engine(
        f"postgresql+{driver.__name__}://",
        # A libpq URL or conninfo, not an SQLAlchemy one: the driver itself opens it.
        creator=lambda: driver.connect(
            url,
            connect_timeout=given.get("connect_timeout", CONNECT_TIMEOUT_SECONDS),
            client_encoding="UTF8",  # also for a database made without an encoding
            options=f"-c lock_timeout={LOCK_TIMEOUT}",
        ),
        poolclass=sqlalchemy.NullPool,
    )
    try:
        with engine.begin() as connection:
            yield connection
    except (driver.OperationalError, sqlalchemy.exc.OperationalError) as error:
        raise DatabaseUnreachable(f"the database did not answer: {first_line(error)}") from error
    except (driver.Error, sqlalchemy.exc.DBAPIError) as error:
        raise MigrationError(f"{failed}: {first_line(error)}") from error


def _driver(database_url: str) -> Any:
    """The module of the driver that the URL names, or else of one that is installed.

    Raises MigrationError where there is none.
    """
    named = WITH_DRIVER.match(database_url)
    wanted = sorted(DRIVERS, key=lambda name: not named or name != named[2])
    problems = []
    for name in wanted:
        try:
            return import_module(name)
        except ImportError as error:  # of psycopg also where libpq is missing
            problems.append(f"{name}: {first_line(error)}")
    raise MigrationError(
        "no Postgres driver can be loaded: pip install 'outbox-migrations[psycopg]', or psycopg2"
        f" ({'; '.join(problems)})"
    )


def _libpq_url(database_url: str, driver: Any) -> tuple[str, dict[str, str]]:
    """The URL as libpq reads it: without SQLAlchemy's driver part, such as +asyncpg. And its parts.

    Raises InvalidSetting where it is none. libpq's own complaint would repeat the password.
    """
    url = WITH_DRIVER.sub(r"\1://", database_url)
    if driver.__name__ == "psycopg":
        parse = import_module("psycopg.conninfo").conninfo_to_dict
    else:
        parse = import_module("psycopg2.extensions").parse_dsn
    try:
        return url, parse(url)
    except driver.ProgrammingError:
        hint = "give postgresql://user@host:port/database, or host=... dbname=..."
        raise InvalidSetting(f"OUTBOX_DATABASE_URL is malformed: {hint}") from None
