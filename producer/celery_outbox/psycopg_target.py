"""psycopg: messages are inserted where they were sent, many in one statement.

`.delay()` only adds to a list. Every operation on a connection passes through its `wait()`; while a
block is open, what is on the list is inserted right before the next operation of any kind. A
SAVEPOINT, ROLLBACK TO, SELECT or COMMIT therefore finds each row exactly where the code sent it,
and `.delay()` needs no await on an AsyncConnection.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, Error
from psycopg.errors import PipelineAborted
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier

from celery_outbox.errors import UnusableTarget
from celery_outbox.insert import explain, insert
from celery_outbox.message import Message

T = TypeVar("T")
Operation = Generator[Any, Any, T]
AnyConnection = Connection[Any] | AsyncConnection[Any]

CANCEL = "SELECT {schema}.cancel(%s)"


class Pending:
    """The messages sent on one connection and not yet inserted; stands in for its `wait()`."""

    def __init__(self, connection: AnyConnection, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        self.messages: deque[Message] = deque()
        self.blocks = 0
        self._wait: Callable[..., Any] = connection.wait

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
            return pgconn.pipeline_status != PipelineStatus.OFF
        return not self.connection.closed

    def _insert_before(self, operation: Operation[T]) -> Operation[T]:
        messages = []
        while self.messages:  # one by one, as another thread may add meanwhile
            messages.append(self.messages.popleft())
        pipeline = self.connection.pgconn.pipeline_status != PipelineStatus.OFF
        try:
            yield from self._insert(messages)
        except Exception as error:
            failure = error
        else:
            return (yield from operation)
        if getattr(failure, "sqlstate", None):
            # In a pipeline an earlier statement may be the one that failed.
            failure = failure if pipeline else explain(failure, self.schema, messages)
        elif not isinstance(failure, PipelineAborted):
            self.connection.pgconn.finish()  # not aborted by the server: it must not commit
        with suppress(Error):
            # psycopg's record of open transactions must stay right. Of a failed transaction
            # nothing can come: even COMMIT rolls it back.
            yield from operation
        raise failure

    def _insert(self, messages: list[Message]) -> Operation[None]:
        connection: Any = self.connection
        cursor: Any = (
            AsyncCursor(connection)
            if isinstance(connection, AsyncConnection)
            else Cursor(connection)
        )
        pipeline = connection._pipeline
        if connection.pgconn.pipeline_status == PipelineStatus.OFF:
            connection._pipeline = None  # about to enter pipeline mode, but not in it yet
        try:
            # As execute() does it, under the lock that the caller of wait() already holds.
            yield from cursor._execute_gen(*insert(self.schema, messages))
        finally:
            connection._pipeline = pipeline


class PsycopgTarget:
    """The transaction of a psycopg connection. See `Target`."""

    def __init__(self, connection: AnyConnection, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        self._pending: Pending

    def join(self, *, blocking: bool) -> None:
        """Put the list of pending messages in force."""
        pending = Pending.of(self.connection)
        if blocking and pending is None:  # or an outer block does what must be awaited
            self._require(Connection, "it is asynchronous: use `async with` here")
        self._check()
        if pending is None:
            pending = Pending(self.connection, self.schema)
            pending.install()
        self._pending = pending
        self._pending.blocks += 1

    def put(self, message: Message) -> None:
        """Add to the list."""
        self._check()
        self._pending.messages.append(message)

    def leave(self, *, failed: bool) -> None:
        """Insert what is still on the list."""
        connection: Any = self.connection
        with self._leaving(failed) as anything_left:
            if anything_left:
                with connection.lock:
                    connection.wait(_nothing())

    async def aleave(self, *, failed: bool) -> None:
        """Insert what is still on the list."""
        connection: Any = self.connection
        if isinstance(connection, Connection):
            self.leave(failed=failed)
            return
        with self._leaving(failed) as anything_left:
            if anything_left:
                async with connection.lock:
                    await connection.wait(_nothing())

    @contextmanager
    def _leaving(self, failed: bool) -> Iterator[bool]:
        """Yield whether messages must be inserted now, and give the connection back in the end.

        After an error too: whoever catches it may still commit. But then a failure to insert, which
        aborts the transaction, does not hide the error.
        """
        pending = self._pending
        try:
            yield bool(pending.messages) and pending.blocks == 1 and not self.connection.closed
            if pending.messages and pending.blocks == 1:
                raise self._unusable(
                    "it was closed, or left inside a COPY, before they were stored"
                )
        except Exception:
            if not failed:
                raise
        finally:
            pending.blocks -= 1
            if not pending.blocks:
                pending.remove()

    def discard(self) -> None:
        """Empty the list."""
        self._pending.messages.clear()

    def begin(self) -> AbstractContextManager[object]:
        """Return `connection.transaction()`."""
        self._require(Connection, "it is asynchronous: use `async with` here")
        return self.connection.transaction()  # type: ignore[return-value]  # as required above

    def abegin(self) -> AbstractAsyncContextManager[object]:
        """Return `connection.transaction()`."""
        self._require(AsyncConnection, "it is not asynchronous: use `with` here")
        return self.connection.transaction()  # type: ignore[return-value]  # as required above

    def in_transaction(self) -> bool:
        """Tell whether BEGIN was sent."""
        return self.connection.pgconn.transaction_status != TransactionStatus.IDLE

    def cancel(self, message_id: str) -> bool | Awaitable[bool]:
        """Call the schema's function `cancel`."""
        self._check()
        query = SQL(CANCEL).format(schema=Identifier(self.schema))
        if isinstance(self.connection, AsyncConnection):
            return self._acancel(self.connection, query, message_id)
        try:
            row = (
                Cursor(self.connection, row_factory=tuple_row)
                .execute(query, (message_id,))
                .fetchone()
            )
        except Error as error:
            failure = explain(error, self.schema, ())
        else:
            return bool(row and row[0])
        raise failure

    async def _acancel(self, connection: Any, query: Composed, message_id: str) -> bool:
        try:
            cursor = AsyncCursor(connection, row_factory=tuple_row)
            row = await (await cursor.execute(query, (message_id,))).fetchone()
        except Error as error:
            failure = explain(error, self.schema, ())
        else:
            return bool(row and row[0])
        raise failure

    def _check(self) -> None:
        """Refuse a connection whose transaction could not commit a message."""
        status = self.connection.pgconn.transaction_status
        if status == TransactionStatus.UNKNOWN:
            raise self._unusable("it is closed")
        if status == TransactionStatus.INERROR:
            raise self._unusable("its transaction has failed and can only be rolled back")
        if status == TransactionStatus.IDLE and self.connection.autocommit:
            raise self._unusable(
                "it is in autocommit mode with no transaction in progress. Use"
                " `with connection.transaction():`, or app.outbox.transaction(connection)"
            )

    def _require(self, kind: type[Any], otherwise: str) -> None:
        if not isinstance(self.connection, kind):
            raise self._unusable(otherwise)

    def _unusable(self, reason: str) -> UnusableTarget:
        return UnusableTarget.about(target=repr(self.connection), reason=reason)


def target_for(target: Any, schema: str) -> PsycopgTarget:
    """Return the Target for a psycopg connection. Raises UnusableTarget for anything else."""
    if not isinstance(target, Connection | AsyncConnection):
        raise UnusableTarget.about(
            target=repr(target), reason="give the psycopg connection itself, not something of it"
        )
    return PsycopgTarget(target, schema)


def _nothing() -> Operation[None]:
    """Return an operation that only gives the pending messages their turn."""
    yield from ()
