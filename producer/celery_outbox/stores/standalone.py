"""Rows of a transaction of their own: durable when `store` returns, or an error says so.

One connection per thread, never shared with a forked child. Nothing waits without a deadline.
"""

import os
import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from celery_outbox.errors import DatabaseUnavailable, InvalidSetting
from celery_outbox.message import Message, Parcel
from celery_outbox.statements.commands import Entry, Outcome, Rows, commands, execute_all
from celery_outbox.statements.insert import explain, insert_once

T = TypeVar("T")

#: Classes of SQLSTATE whose messages are about the server and the connection, never about a row.
OF_THE_SERVER: Final = frozenset({"08", "25", "28", "3D", "53", "57", "58"})
#: What SQLAlchemy writes and libpq does not read: postgresql+psycopg://
WITH_DRIVER: Final = re.compile(r"postgres(?:ql)?\+\w+://")

#: Seconds to connect, and to store a row.
CONNECT_TIMEOUT: Final = 5
STATEMENT_TIMEOUT: Final = 10.0

#: libpq notices a dead network within seconds; what the URL says comes first.
DEFAULTS: Final = {
    "connect_timeout": str(CONNECT_TIMEOUT),
    "tcp_user_timeout": "10000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "application_name": "celery-outbox",
}


class Connection(psycopg.Connection[Any]):
    """A connection on which no operation lasts longer than STATEMENT_TIMEOUT.

    The clock is ours: a server that is frozen keeps no timeout of its own.
    """

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        """Wait for `gen` as psycopg does, but not for ever."""
        result: T = super().wait(_until(monotonic() + STATEMENT_TIMEOUT, gen), *args, **kwargs)
        return result


def _until(deadline: float, operation: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    # psycopg resumes an operation several times a second, ready or not.
    try:
        wanted = next(operation)
        while True:
            ready = yield wanted
            if monotonic() > deadline:
                raise psycopg.OperationalError(f"no answer within {STATEMENT_TIMEOUT:.0f} s")
            wanted = operation.send(ready)
    except StopIteration as done:
        result: T = done.value
        return result


class Standalone:
    """The outbox of a database, for messages that have no transaction to join. See `Store`."""

    def __init__(self, url: str, schema: str) -> None:
        self.url = url
        self._schema = schema
        self._parameters = DEFAULTS | _parse(url)
        self._threads = threading.local()
        self._inherited: list[Connection] = []

    def store(self, message: Parcel) -> Outcome:
        """Store the message; durable on return.

        Raises DatabaseUnavailable (transient), OutboxNotReady or RowRefused.
        """
        entry = Entry.of(self._schema, message)
        with self._failing(message):
            self._insert(entry)
        return entry.outcome

    def store_apart(self, message: Parcel) -> Outcome:
        """Store the message, which is apart in any case."""
        return self.store(message)

    def store_once(self, message: Message, seconds: float) -> Outcome:
        """Store the message, unless it was. See `Store`."""
        with self._failing(message):
            text, parameters = insert_once(self._schema, message, seconds)
            connection = self._connection()
            # Behind an earlier attempt it must see what that has stored: see `_connection`.
            with connection.transaction() if seconds else nullcontext():
                connection.execute(text.encode(), parameters)
        return Outcome(message)

    @contextmanager
    def _failing(self, message: Parcel) -> Iterator[None]:
        """Say what a failure means, and leave no connection behind of which nobody knows more."""
        try:
            yield
        except psycopg.Error as error:
            failure = explain(error, self._schema, [message])
            if failure is error:
                self._close()
                failure = DatabaseUnavailable.about(task=message.task, reason=_reason(error))
        except BaseException:  # a time limit, Ctrl-C: an answer may be under way
            self._close()
            raise
        else:
            return
        raise failure

    def is_alone(self) -> bool:
        """Tell that it is."""
        return True

    def _insert(self, entry: Entry) -> None:
        connection = self._connection()

        def execute(text: str, parameters: Any) -> Rows:
            cursor = connection.execute(text.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

        # Claim and INSERT are one; a single INSERT is a transaction by itself.
        alone = entry.message.dedup_key is None
        with nullcontext() if alone else connection.transaction():
            execute_all(commands(self._schema, [entry]), execute)

    def _connection(self) -> Connection:
        own = vars(self._threads)
        connection: Connection | None = own.get("connection")
        if connection is not None and own["pid"] != os.getpid():
            self._inherited.append(connection)  # the parent's: neither used nor closed here
        elif connection is not None and _alive(connection):
            return connection
        # Autocommit: the one INSERT is the transaction. Not prepared, for poolers' sake.
        parameters: Any = self._parameters
        connection = Connection.connect(autocommit=True, prepare_threshold=None, **parameters)
        # Of transactions: a login may have another level by default, at which what was committed
        # after their first statement began is not seen.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        own["connection"], own["pid"] = connection, os.getpid()
        return connection

    def _close(self) -> None:
        connection = vars(self._threads).pop("connection", None)
        if connection is not None:
            connection.close()


def _parse(url: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        problem = "is not a libpq URL or conninfo, such as postgresql://user@host/database"
    if driver := WITH_DRIVER.match(url):
        problem = f"begins with {driver.group()}: write postgresql://, without a driver"
    elif unknown := sorted(_options(url) - _known_options()):
        problem = f"has the option {unknown[0]!r}, which libpq does not know"
        problem += "; TLS is asked for with sslmode=require" if unknown[0] == "ssl" else ""
    # Outside the handler: libpq's message repeats parts of the URL, perhaps the password.
    raise InvalidSetting.about(setting="OUTBOX_DATABASE_URL (outbox_database_url)", problem=problem)


def _options(url: str) -> set[str]:
    """Return the names of the options in the query of a URL."""
    query = url.partition("?")[2] if "://" in url else ""
    return {name for name, *value in (each.split("=") for each in query.split("&")) if value}


def _known_options() -> set[str]:
    return {option.keyword.decode() for option in Conninfo.get_defaults()}


def _alive(connection: Connection) -> bool:
    """Tell whether the idle connection still has a server, without asking it."""
    try:
        for _ in range(2):  # the server's last words, then the end of the stream
            connection.pgconn.consume_input()
    except psycopg.Error:
        connection.close()
    return not connection.closed


def _reason(error: psycopg.Error) -> str:
    """Return what went wrong, without what a server may repeat of a row."""
    if error.sqlstate is not None and error.sqlstate[:2] not in OF_THE_SERVER:
        return f"SQLSTATE {error.sqlstate}"
    return (str(error).splitlines() or [type(error).__name__])[0]
