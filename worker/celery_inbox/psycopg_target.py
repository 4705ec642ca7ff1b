"""A psycopg connection as a target: no round trip more than the task by itself would take.

The inbox' first statement travels with BEGIN and its last with COMMIT, in psycopg's pipeline mode.
The body finds the connection as ever.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from celery_inbox.errors import TransactionEnded, UnusableConnection
from celery_inbox.target import Row, Statement, ended_early

Connection = psycopg.Connection[Any]


class PsycopgTarget:
    """A connection in a block of `connection.transaction()`, in which psycopg refuses commit()."""

    def __init__(self, handle: Any, connection: Connection) -> None:
        self.handle = handle
        self._connection = connection  # the handle itself, or what a proxy hides
        self._block: psycopg.Transaction | None = None
        self._own = True

    def begin(self, first: Statement | None) -> Row | None:
        """BEGIN, or a savepoint where the connection is in a transaction already."""
        self._refuse_closed()
        self._own = self._connection.info.transaction_status is TransactionStatus.IDLE
        # What connection.transaction() makes, but that would leave the pipeline on in its block.
        block = psycopg.Transaction(self._connection)
        with one_round_trip(self._connection):
            block.__enter__()
            self._block = block
            cursor = None if first is None else run(self._connection, first)
        return None if cursor is None else first_row(cursor)

    def alone(self, statement: Statement) -> Row | None:
        """BEGIN, the statement and COMMIT together."""
        self._refuse_closed()
        with one_round_trip(self._connection), self._connection.transaction():
            cursor = run(self._connection, statement)
        self._commit_what_had_begun()
        return first_row(cursor)

    def execute(self, statement: Statement) -> Row | None:
        """Run it with a cursor of our own: the connection's is the application's choice."""
        return first_row(run(self._connection, statement))

    def commit(self, last: Statement | None) -> None:
        """Send the last statement and COMMIT together: the server skips COMMIT if it fails."""
        if self._block is None or self.ended():
            raise TransactionEnded(ended_early())
        with one_round_trip(self._connection):
            if last is not None:
                run(self._connection, last)
            block, self._block = self._block, None
            block.__exit__(None, None, None)
        self._commit_what_had_begun()

    def roll_back(self, error: BaseException) -> None:
        """Leave the block as psycopg has it, or end what a failed COMMIT left open."""
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(type(error), error, error.__traceback__)
        elif self._own and not self._connection.closed:
            self._connection.rollback()

    def ended(self) -> bool:
        """True where the body closed the connection, false where it was lost."""
        return self._connection.closed and not self._connection.broken

    def _refuse_closed(self) -> None:
        if self._connection.closed:
            raise UnusableConnection(
                "@idempotent: the connection it was given is closed. connect() must open another "
                "one each time; to keep one open, give @idempotent a database URL or a pool"
            )

    def _commit_what_had_begun(self) -> None:
        """Where the connection was in a transaction already."""
        if self._connection.info.transaction_status is not TransactionStatus.INTRANS:
            return
        try:
            self._connection.commit()
        except psycopg.ProgrammingError as error:
            if error.sqlstate:
                raise
            # Refused by psycopg: within a block of connect()'s own.


@contextmanager
def one_round_trip(connection: Connection) -> Iterator[None]:
    """What is sent inside is answered at the end, where the client library can do that."""
    if not psycopg.Pipeline.is_supported():
        yield
        return
    try:
        with connection.pipeline():
            yield
    except psycopg.errors.PipelineAborted as aborted:
        # Raised instead of the error that aborted it, when the answers arrive one by one.
        raise (aborted.__context__ or aborted) from None


def run(connection: Connection, statement: Statement) -> "psycopg.Cursor[Row]":
    """Send a statement whose parameters may be fetched later."""
    cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    return cursor.execute(statement.sql, statement.parameters)


def first_row(cursor: "psycopg.Cursor[Row]") -> Row | None:
    """The first row of a statement that was answered."""
    with cursor:
        return cursor.fetchone() if cursor.description else None
