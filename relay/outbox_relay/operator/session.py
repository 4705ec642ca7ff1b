"""An operator's connection to the outbox: bounded in time, and not mistaken for a relay."""

from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.datetime import TimestamptzLoader

from outbox_relay.postgres.database import BoundedConnection, connect, translated
from outbox_relay.settings import Settings

T = TypeVar("T")

#: A time of a row: Postgres has more of them than Python, which are then text, such as `infinity`.
Time = datetime | str

APPLICATION_NAME: Final = "outbox-relay-cli"


class AnyTime(TimestamptzLoader):
    """A time, or Postgres' own words for one that Python cannot hold."""

    def load(self, data: Any) -> Any:
        """The time, or the text of it."""
        try:
            return super().load(data)
        except psycopg.DataError:
            return bytes(data).decode()


class Session:
    """A connection in which every statement commits by itself, unless in `transaction`."""

    def __init__(
        self, connection: BoundedConnection, schema: str, role: str = "outbox_relay"
    ) -> None:
        self.connection = connection
        self.schema = schema
        self._role = role
        connection.adapters.register_loader("timestamptz", AnyTime)

    @classmethod
    def open(cls, settings: Settings, *, role: str = "outbox_relay") -> Self:
        """Connect, or raise StoreLost; behind pgbouncer it works as well.

        `role` is named where a right is missing: the least that may do what is asked for.
        """
        url = settings.database_url.read()
        connection = connect(url, APPLICATION_NAME, settings.statement_timeout)
        return cls(connection, settings.schema, role)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def transaction(self) -> AbstractContextManager[psycopg.Transaction]:
        """What is run inside happens wholly or not at all."""
        return self.connection.transaction()

    def fetch(self, kind: type[T], statement: str, **parameters: object) -> list[T]:
        """One `kind` for each row, made with the columns as keywords."""
        with translated(self._role), self.connection.cursor(row_factory=class_row(kind)) as cursor:
            return cursor.execute(self._composed(statement), parameters).fetchall()

    def value(self, statement: str, **parameters: object) -> Any:
        """The only column of the only row."""
        with translated(self._role):
            row = self.connection.execute(self._composed(statement), parameters).fetchone()
        return row[0] if row else None

    def _composed(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(outbox=sql.Identifier(self.schema))
