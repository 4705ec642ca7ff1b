"""Inserts messages right before the next operation of a psycopg connection, many in one statement.

Every operation on a connection passes through its `wait()`, which takes a generator that talks to
the server. While a block is open, that `wait()` first runs another generator, the INSERT of what is
on the list. A SAVEPOINT, ROLLBACK TO, SELECT or COMMIT therefore finds each row exactly where the
code sent it, and sending needs no await on an AsyncConnection.
"""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, Error
from psycopg.errors import PipelineAborted, QueryCanceled
from psycopg.pq import PipelineStatus, TransactionStatus

from celery_outbox.dedup import claims, unclaimed
from celery_outbox.insert import CLAIM_DEDUP, explain, insert, statement
from celery_outbox.message import Message

T = TypeVar("T")
Operation = Generator[Any, Any, T]
AnyConnection = Connection[Any] | AsyncConnection[Any]

_CANCEL = b"DO $$ BEGIN RAISE query_canceled; END $$"


class Pending:
    """The messages sent on one connection and not yet inserted; stands in for its `wait()`."""

    def __init__(self, connection: AnyConnection, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        self.messages: deque[Message] = deque()
        self.blocks = 0
        self._wait: Callable[..., Any] = connection.wait
        self._interrupted = False

    @classmethod
    def of(cls, connection: AnyConnection) -> "Pending | None":
        """Return the one in force on `connection`, if a block is open."""
        installed = getattr(vars(connection).get("wait"), "__self__", None)
        return installed if isinstance(installed, cls) else None

    def install(self) -> None:
        """Take the place of the connection's own `wait()`."""
        vars(self.connection)["wait"] = self.wait

    def remove(self) -> None:
        """Give the connection its own `wait()` back."""
        vars(self.connection).pop("wait", None)

    def wait(self, operation: Operation[T], *args: Any, **kwargs: Any) -> Any:
        """Do what the connection's `wait()` does, with the messages inserted first."""
        if self._due():
            operation = self._insert_before(operation)
        return self._wait(operation, *args, **kwargs)

    def _due(self) -> bool:
        if not self.messages:
            return False
        pgconn = self.connection.pgconn
        if pgconn.transaction_status == TransactionStatus.INERROR:
            self.messages.clear()  # sent during a COPY that failed: they roll back with it
            return False
        if pgconn.transaction_status == TransactionStatus.ACTIVE:
            # In the middle of a COPY or stream nothing else can run; nor can a savepoint.
            return self.in_pipeline
        return not self.connection.closed

    def _insert_before(self, operation: Operation[T]) -> Operation[T]:
        messages = []
        while self.messages:  # one by one, as another thread may add meanwhile
            messages.append(self.messages.popleft())
        entering_pipeline = self._pipeline is not None and not self.in_pipeline
        try:
            yield from self._noticing_interrupts(self._insert(messages))
        except Exception as error:
            failure = self._judge(error, messages)
        else:
            return (yield from operation)
        if not entering_pipeline:
            # psycopg's record of open transactions must stay right. Of a failed transaction
            # nothing can come: even COMMIT rolls it back.
            with suppress(Error):
                yield from operation
        raise failure

    def _noticing_interrupts(self, insert: Operation[None]) -> Operation[None]:
        """Note when psycopg goes on after a cancelled task or Ctrl-C: it sends nothing then."""
        self._interrupted, ready = False, None
        while True:
            try:
                wanted = insert.send(ready)
            except StopIteration:
                return
            ready = yield wanted
            self._interrupted = self._interrupted or ready is None

    def _insert(self, messages: list[Message]) -> Operation[None]:
        connection: Any = self.connection
        synchronous = isinstance(connection, Connection)
        cursor: Any = Cursor(connection) if synchronous else AsyncCursor(connection)
        pipeline = self._pipeline
        if not self.in_pipeline:
            connection._pipeline = None  # about to be entered, perhaps, but not yet in force
        try:
            # As execute() does it, under the lock that the caller of wait() already holds.
            keys, ids = claims(messages)
            if keys:
                claim = statement(CLAIM_DEDUP, self.schema)
                yield from cursor._execute_gen(claim.encode(), (keys, ids))
                messages = unclaimed(messages, keys, _answers(cursor.pgresult))
            if messages:
                text, parameters = insert(self.schema, messages)
                yield from cursor._execute_gen(text.encode(), parameters)
            if self._interrupted and not self.in_pipeline:
                # The server was asked too late to cancel the insert. What comes next must not
                # begin: psycopg would wait 5 s for its end, and close the connection.
                yield from cursor._execute_gen(_CANCEL, ())
        finally:
            connection._pipeline = pipeline

    def _judge(self, error: Exception, messages: list[Message]) -> Exception:
        """Return what to raise, and see that the transaction cannot commit."""
        if getattr(error, "sqlstate", None):
            # Aborted by the server. In a pipeline an earlier statement may be what failed. Of a
            # cancelled task psycopg expects its own error, or it would close the connection.
            if self.in_pipeline or isinstance(error, QueryCanceled):
                return error
            return explain(error, self.schema, messages)
        if not isinstance(error, PipelineAborted):
            self.connection.pgconn.finish()
        return error

    @property
    def _pipeline(self) -> object | None:
        return self.connection._pipeline

    @property
    def in_pipeline(self) -> bool:
        """Whether the server's answers come only later."""
        return self.connection.pgconn.pipeline_status != PipelineStatus.OFF


def _answers(result: Any) -> list[str | None]:
    """Return the only column of a result, which is text."""
    values = [result.get_value(row, 0) for row in range(result.ntuples)]
    return [None if value is None else value.decode() for value in values]


def nothing() -> Operation[None]:
    """Return an operation that only gives the messages on the list their turn."""
    yield from ()
