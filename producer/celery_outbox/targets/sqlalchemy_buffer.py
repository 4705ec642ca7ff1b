"""Buffers messages, and inserts them right before the next thing a SQLAlchemy connection does.

SQLAlchemy's events tell of every statement, SAVEPOINT included, every COMMIT and every ROLLBACK
before it happens. Many messages go in one statement, and each row is exactly where the code sent
it, as with psycopg's own connections. Sending needs no await: on asyncio the events come where
SQLAlchemy itself may wait.

A connection has one buffer, for as long as it lives. Adding to it never waits. A COMMIT waits until
what another thread took from it is inserted.
"""

from itertools import groupby
from operator import attrgetter
from threading import RLock
from typing import Any, Final, cast

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from celery_outbox.errors import OutboxError, UnusableTarget
from celery_outbox.statements.commands import Entries, Entry, Rows, commands, execute_all, take_all
from celery_outbox.statements.insert import Style, explain, sqlstate

STYLES: Final = {
    "psycopg": Style.PSYCOPG,
    "psycopg_async": Style.PSYCOPG,
    "psycopg2": Style.FORMAT,
    "asyncpg": Style.NUMBERED,
}
_KEY: Final = "_celery_outbox"


class ConnectionBuffer:
    """The messages sent on one connection and not yet inserted."""

    def __init__(self) -> None:
        self.entries = Entries()
        self._inserting = RLock()  # so that an INSERT may raise the events that ask for it
        self._in_flight = 0
        self._listening = False
        #: Held while a transaction is begun.
        self.beginning = RLock()

    @classmethod
    def of(cls, connection: Connection) -> "ConnectionBuffer":
        """Return the one of `connection`, which is there for as long as the connection object."""
        own = vars(connection)
        found = cast("ConnectionBuffer | None", own.get(_KEY))
        if found is None:
            found = cast("ConnectionBuffer", own.setdefault(_KEY, cls()))
        if not found._listening:
            found._listen(connection)
        return found

    def _listen(self, connection: Connection) -> None:
        with self._inserting:
            if self._listening:
                return
            for name in ("before_cursor_execute", "prepare_twophase"):
                event.listen(connection, name, self.insert)
            for name in ("commit", "commit_twophase"):
                event.listen(connection, name, self._before_commit)
            for name in ("rollback", "rollback_savepoint", "rollback_twophase"):
                event.listen(connection, name, self.discard)
            self._listening = True

    def insert_if_free(self, connection: Connection) -> None:
        """Insert what is buffered, unless the connection is at work: this may be part of that.

        Then it is inserted with the next event, the COMMIT at the latest.
        """
        driver: Any = connection.connection.driver_connection
        lock = getattr(driver, "lock", None)  # psycopg's, held in a COPY as well
        if not self._in_flight and not (lock is not None and lock.locked()):
            self.insert(connection)

    def insert(self, connection: Connection, *_: Any) -> None:
        """Insert what is buffered, in the transaction `connection` is in."""
        with self._inserting:
            if not self.entries:
                return
            self._in_flight += 1
            try:
                self._insert_all(connection)
            except OutboxError:
                raise
            except BaseException as error:
                if sqlstate(error) is None:
                    _give_up(connection)
                raise
            finally:
                self._in_flight -= 1

    def _insert_all(self, connection: Connection) -> None:
        taken = take_all(self.entries)
        check_autocommit(connection)
        for schema, group in groupby(taken, attrgetter("schema")):
            _insert(connection, schema, list(group))

    def _before_commit(self, connection: Connection, *_: Any) -> None:
        """Insert, or roll back: SQLAlchemy takes a COMMIT that fails for the end."""
        try:
            self.insert(connection)
        except Exception:
            if not connection.invalidated:
                connection.dialect.do_rollback(connection.connection)
            raise
        except BaseException:
            _give_up(connection)
            raise

    def discard(self, *_: Any) -> None:
        """Forget what is buffered.

        When something rolls back, all that is in it was sent since: the SAVEPOINT it rolls back to
        was a statement, and had everything before it inserted.
        """
        self.entries.clear()


def _insert(connection: Connection, schema: str, entries: list[Entry]) -> None:
    def execute(text: str, parameters: Any) -> Rows:
        options = {"stream_results": False}
        result = connection.exec_driver_sql(text, parameters, execution_options=options)
        return [tuple(row) for row in result] if result.returns_rows else []

    try:
        execute_all(commands(schema, entries, STYLES[connection.dialect.driver]), execute)
    except Exception as error:
        failure = explain(error, schema, [each.message for each in entries])
        if isinstance(error, DBAPIError):
            error.hide_parameters = True  # they are somebody's payload
        if sqlstate(error) is None:
            _give_up(connection)
    else:
        return
    raise failure


def _give_up(connection: Connection) -> None:
    """Close the driver's connection: the server does not know of the failure, and would commit."""
    if not connection.closed:
        connection.invalidate()


def check_autocommit(connection: Connection) -> None:
    """Raise UnusableTarget where each statement would commit by itself."""
    dbapi: Any = connection.connection.dbapi_connection
    if dbapi.autocommit:
        raise UnusableTarget.about(
            target=repr(connection), reason="it is in autocommit mode, with no transaction to join"
        )
