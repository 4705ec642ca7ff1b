"""psycopg connections as targets. How rows get into their transactions is psycopg_buffer's job."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from psycopg import (
    AsyncConnection,
    AsyncCursor,
    AsyncTransaction,
    Connection,
    Cursor,
    Error,
    Transaction,
)
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from celery_outbox.errors import UnusableTarget
from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Entry, Outcome, Rows
from celery_outbox.statements.insert import explain, statement
from celery_outbox.targets.psycopg_buffer import Buffer, nothing
from celery_outbox.targets.psycopg_insertion import AnyConnection, Operation, in_pipeline
from celery_outbox.targets.target import ASYNCHRONOUS, CLOSED, FAILED, SYNCHRONOUS, described

CLOSED_EARLY: Final = "it was closed before they were stored"


class PsycopgTarget:
    """The transaction of a psycopg connection. See `Target`."""

    buffers = True

    def __init__(self, connection: AnyConnection, schema: str) -> None:
        self.connection = connection
        self.schema = schema
        #: Whether the block of `begin` ends with a COMMIT, which takes along what is buffered.
        self._commits = False

    def join(self, *, blocking: bool) -> None:
        """Refuse what cannot take messages, and let sends know of a block that awaits."""
        self._check()
        if isinstance(self.connection, Connection):
            return
        buffer = Buffer.of(self.connection)
        if not blocking:
            buffer.async_blocks.add(self)
        elif not buffer.async_blocks:  # or an outer block does what must be awaited
            raise self._unusable(
                "it is asynchronous: use `async with app.outbox.using(connection)`, inside which"
                " outbox= may name it"
            )

    def put(self, message: Parcel) -> Outcome:
        """Add to the buffer; insert it where that is full, or where the answer matters."""
        self._check()
        if message.dedup_key is not None and in_pipeline(self.connection):
            raise self._unusable("in pipeline mode it cannot tell whether a dedup_key is pending")
        self._begin()
        entry = Entry.of(self.schema, message)
        entries = Buffer.of(self.connection).entries
        entries.append(entry)
        if message.dedup_key is not None or entries.are_enough():
            self.flush()
        return entry.outcome

    def put_many(self, message: Parcel) -> Outcome:
        """Add to the buffer."""
        return self.put(message)

    def put_alone(self, message: Parcel) -> Outcome:
        """Insert at once; where the connection is asynchronous, with whatever it does next."""
        if not isinstance(self.connection, Connection) and not self.in_transaction():
            self.join(blocking=True)  # given back to a pool, nothing would roll the message back
        outcome = self.put(message)
        self.flush()
        return outcome

    def leave(self, *, failed: bool) -> None:
        """Insert what is still buffered, or leave it to the COMMIT that comes next."""
        with self._leaving(failed):
            if failed or not self._commits:
                self.flush()

    async def aleave(self, *, failed: bool) -> None:
        """Insert what is still buffered."""
        connection: Any = self.connection
        if isinstance(connection, Connection):
            self.leave(failed=failed)
            return
        buffer = Buffer.of(connection)
        buffer.async_blocks.discard(self)
        with self._leaving(failed):
            if buffer.entries and not (connection.closed or connection.lock.locked()):
                async with connection.lock:
                    await connection.wait(nothing())

    @contextmanager
    def _leaving(self, failed: bool) -> Iterator[None]:
        """Insert after an error too: whoever catches it may still commit.

        But then a failure to insert, which aborts the transaction, does not hide the error.
        """
        try:
            if self._in_pool:
                self._give_up("it was given back to its pool before they were stored")
            yield
            if self.connection.closed:
                self._give_up(CLOSED_EARLY)
        except Exception:
            if not failed:
                raise

    def has_entries(self) -> bool:
        """Tell whether anything is not inserted yet."""
        return bool(Buffer.of(self.connection).entries)

    def _give_up(self, reason: str) -> None:
        """Raise UnusableTarget if anything is still buffered, and forget it."""
        if entries := Buffer.of(self.connection).entries:
            entries.clear()
            raise self._unusable(reason)

    @property
    def _in_pool(self) -> bool:
        """Whether psycopg_pool holds the connection: that is how it marks one."""
        return vars(self.connection).get("_pool", self) is None

    def discard(self) -> None:
        """Forget what is buffered."""
        Buffer.of(self.connection).entries.clear()

    def _begin(self) -> None:
        """Begin a transaction where there is none, as any statement does.

        So a pool sees that there is something to roll back.
        """
        idle = not self.in_transaction() and not in_pipeline(self.connection)
        if idle and isinstance(self.connection, Connection):
            self._run(self.connection._start_query())

    def flush(self) -> None:
        """Insert what is buffered, where that can be waited for."""
        connection = self.connection
        if isinstance(connection, Connection) and Buffer.of(connection).entries:
            if connection.closed:
                self._give_up(CLOSED)
            self._run(nothing())

    def _run(self, operation: Operation[None]) -> None:
        """Run an operation now, unless another one runs: this one may be part of it, as in a COPY.

        Whatever comes after that, the COMMIT at the latest, inserts what is buffered.
        """
        connection: Any = self.connection
        if not connection.closed and connection.lock.acquire(blocking=False):
            try:
                connection.wait(operation)
            finally:
                connection.lock.release()

    @contextmanager
    def begin(self) -> Iterator[object]:
        """Be the block of `connection.transaction()`."""
        connection: Any = self.connection
        self._require(Connection, ASYNCHRONOUS)
        with connection.transaction() as transaction:
            self._expect_commit(transaction)
            yield transaction
        if connection.closed:  # by another thread: psycopg says nothing
            self._give_up(CLOSED_EARLY)

    @asynccontextmanager
    async def abegin(self) -> AsyncIterator[object]:
        """Be the block of `connection.transaction()`."""
        connection: Any = self.connection
        self._require(AsyncConnection, SYNCHRONOUS)
        async with connection.transaction() as transaction:
            self._expect_commit(transaction)
            yield transaction
        if connection.closed:
            self._give_up(CLOSED_EARLY)

    def _expect_commit(self, transaction: Transaction | AsyncTransaction) -> None:
        self._commits = not transaction.savepoint_name
        if self._commits:
            Buffer.of(self.connection).expect_commit(transaction)

    def in_transaction(self) -> bool:
        """Tell whether BEGIN was sent."""
        return self.connection.pgconn.transaction_status != TransactionStatus.IDLE

    def is_given_up(self) -> bool:
        """Tell whether the transaction has ended, which only its code can have done."""
        return not self.in_transaction()

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
            raise self._unusable(CLOSED)
        if self._in_pool:
            raise self._unusable("it was given back to its pool")
        if status == TransactionStatus.INERROR:
            raise self._unusable(FAILED)
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
            target=described(target),
            reason="give the psycopg connection itself, not something of it",
        )
    return PsycopgTarget(target, schema)
