"""An operator's connection to the outbox: bounded in time, and not mistaken for a relay.

Raises StoreLost where the database does not answer and SchemaError where the tables are missing or
not ours to use; no message repeats what a row contains.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row

from outbox_relay.errors import SchemaError, SettingsError, StoreLost
from outbox_relay.settings import Settings, flag_of

T = TypeVar("T")

APPLICATION_NAME: Final = "outbox-relay-cli"
CONNECT_TIMEOUT_SECONDS: Final = 5

#: As the relay's own session: no plan depends on statistics, which are old when a backlog is new.
SETUP: Final = """
SELECT set_config('application_name', %(name)s, false),
       set_config('timezone', 'UTC', false),
       set_config('jit', 'off', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false),
       set_config('statement_timeout', %(timeout_ms)s, false),
       set_config('lock_timeout', %(timeout_ms)s, false),
       set_config('idle_in_transaction_session_timeout', '60s', false)
"""


class _Bounded(psycopg.Connection[tuple[Any, ...]]):
    """No statement waits longer than `deadline` seconds, even for a server that is frozen."""

    deadline = 10.0

    def wait(self, gen: Any, *_: Any, **__: Any) -> Any:
        try:
            return super().wait(gen, timeout=self.deadline)
        except psycopg.OperationalError:
            self.pgconn.finish()  # the reply may still come: it cannot be used again
            raise


class Session:
    """A connection in which every statement commits by itself, unless in `transaction`."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
        self.connection = connection
        self.schema = schema

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect, or raise StoreLost; behind pgbouncer it works as well."""
        try:
            given = conninfo_to_dict(settings.database_url.read())
            conninfo = make_conninfo("", **{"tcp_user_timeout": "10000", **given})
        except psycopg.ProgrammingError as error:
            raise SettingsError("OUTBOX_DATABASE_URL is not a libpq URL or conninfo") from error
        with translated():
            connection = _Bounded.connect(
                conninfo,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                prepare_threshold=None,
            )
            connection.deadline = settings.statement_timeout + 2
            timeout = str(int(settings.statement_timeout * 1000))
            connection.execute(SETUP, {"name": APPLICATION_NAME, "timeout_ms": timeout})
        return cls(connection, settings.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def transaction(self) -> AbstractContextManager[psycopg.Transaction]:
        """What is run inside happens wholly or not at all."""
        return self.connection.transaction()

    def fetch(self, kind: type[T], statement: str, **parameters: object) -> list[T]:
        """One `kind` for each row, made with the columns as keywords."""
        with translated(), self.connection.cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(self._composed(statement), parameters).fetchall()

    def value(self, statement: str, **parameters: object) -> Any:
        """The only column of the only row."""
        with translated():
            row = self.connection.execute(self._composed(statement), parameters).fetchone()
        return row[0] if row else None

    def _composed(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(outbox=sql.Identifier(self.schema))


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours, in one sentence that says what to do."""
    try:
        yield
    except psycopg.errors.QueryCanceled as error:
        flag = flag_of("OUTBOX_STATEMENT_TIMEOUT")
        raise StoreLost(f"{first_line(error)}: allow it more time with {flag}") from error
    except psycopg.OperationalError as error:
        raise StoreLost(f"the database does not answer: {first_line(error)}") from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise SchemaError(
            f"{first_line(error)}: run outbox-migrate grant and GRANT outbox_relay to this login"
        ) from error
    except (
        psycopg.errors.UndefinedTable,
        psycopg.errors.UndefinedColumn,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.InvalidSchemaName,
    ) as error:
        raise SchemaError(
            f"the outbox is not there ({first_line(error)}): run outbox-migrate up"
        ) from error
    except psycopg.Error as error:
        code = error.sqlstate or type(error).__name__
        raise StoreLost(f"{code}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The driver's summary; what follows it may quote a row."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
