"""psycopg connections as targets. How rows get into their transactions is psycopg_pending's job."""

from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, Error
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from celery_outbox.errors import UnusableTarget
from celery_outbox.insert import explain, statement
from celery_outbox.message import Message
from celery_outbox.psycopg_pending import AnyConnection, Pending, nothing
from celery_outbox.target import Rows


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
            self._require(
                Connection,
                "it is asynchronous: use `async with app.outbox.using(connection)`, inside which"
                " outbox= may name it",
            )
        self._check()
        if pending is None:
            pending = Pending(self.connection, self.schema)
            pending.install()
        self._pending = pending
        self._pending.blocks += 1

    def put(self, message: Message) -> None:
        """Add to the list; where the answer matters and can be waited for, insert at once."""
        self._check()
        if message.dedup_key is None:
            self._pending.messages.append(message)
            return
        if self._pending.in_pipeline:
            raise self._unusable("in pipeline mode it cannot tell whether a dedup_key is pending")
        self._pending.messages.append(message)
        if isinstance(self.connection, Connection):
            with self.connection.lock:
                self.connection.wait(nothing())

    def put_alone(self, message: Message) -> None:
        """Insert at once, or with what an open block has on its list."""
        self.join(blocking=True)
        try:
            self.put(message)
        finally:
            self.leave(failed=False)

    def leave(self, *, failed: bool) -> None:
        """Insert what is still on the list."""
        connection: Any = self.connection
        with self._leaving(failed) as anything_left:
            if anything_left:
                with connection.lock:
                    connection.wait(nothing())

    async def aleave(self, *, failed: bool) -> None:
        """Insert what is still on the list."""
        connection: Any = self.connection
        if isinstance(connection, Connection):
            self.leave(failed=failed)
            return
        with self._leaving(failed) as anything_left:
            if anything_left:
                async with connection.lock:
                    await connection.wait(nothing())

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

    def fetch(self, query: str, *parameters: object) -> Rows | Awaitable[Rows]:
        """Execute and fetch all."""
        self._check()
        text = statement(query, self.schema).encode()
        if isinstance(self.connection, AsyncConnection):
            return self._afetch(self.connection, text, parameters)
        try:
            return (
                Cursor(self.connection, row_factory=tuple_row).execute(text, parameters).fetchall()
            )
        except Error as error:
            failure = explain(error, self.schema, ())
        raise failure

    async def _afetch(self, connection: Any, text: bytes, parameters: tuple[object, ...]) -> Rows:
        try:
            cursor = AsyncCursor(connection, row_factory=tuple_row)
            return await (await cursor.execute(text, parameters)).fetchall()
        except Error as error:
            failure = explain(error, self.schema, ())
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
