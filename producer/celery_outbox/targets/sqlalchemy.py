"""SQLAlchemy sessions and connections as targets, synchronous and on asyncio.

How rows get into their transactions is the job of sqlalchemy_buffer and sqlalchemy_session.
"""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Final

from sqlalchemy import Connection, NestedTransaction, Transaction
from sqlalchemy.exc import InvalidRequestError, UnboundExecutionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
)
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from celery_outbox.errors import UnusableTarget
from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Entry, Outcome, Rows
from celery_outbox.statements.insert import explain, statement
from celery_outbox.targets.sqlalchemy_buffer import STYLES, ConnectionBuffer, check_autocommit
from celery_outbox.targets.sqlalchemy_session import (
    SessionBuffer,
    bind_of,
    connect,
    connection_of,
    is_connecting,
)
from celery_outbox.targets.target import (
    ASYNCHRONOUS,
    CLOSED,
    FAILED,
    INERROR,
    SYNCHRONOUS,
    UNKNOWN,
    described,
)

#: Seconds to wait for another thread that begins a transaction. That reaches no server by itself,
#: but what listens to it may do anything.
MAX_BEGINNING: Final = 10.0
AT_WORK: Final = "another thread or task is at work with it"


class SQLAlchemyTarget:
    """The transaction of a Session or a Connection, or of what is one behind asyncio."""

    buffers = True

    def __init__(
        self,
        given: Session | Connection | AsyncSession | AsyncConnection,
        behind: Session | Connection,
        schema: str,
    ) -> None:
        self._given = given
        self._behind = behind
        self._schema = schema
        self._asynchronous = isinstance(given, AsyncSession | AsyncConnection)
        #: Whether the block of `begin` ends with a COMMIT.
        self._commits = False

    def join(self, *, blocking: bool) -> None:
        """Refuse what cannot take messages. Which driver it has matters when something is sent."""
        if blocking and self._asynchronous:
            raise self._unusable(ASYNCHRONOUS)
        if self._dialect is None or self._dialect.driver in STYLES:
            self._check_transaction()

    def put(self, message: Parcel) -> Outcome:
        """Add to the buffer, and begin a transaction where there is none, as any statement does."""
        return self._put(message, alone=False)

    def put_many(self, message: Parcel) -> Outcome:
        """Add to the buffer."""
        return self.put(message)

    def put_alone(self, message: Parcel) -> Outcome:
        """Insert at once; where the target is asynchronous, with whatever it does next."""
        return self._put(message, alone=True)

    def _put(self, message: Parcel, *, alone: bool) -> Outcome:
        self._check_driver()
        self._check_transaction()
        self._begin()
        entry = Entry.of(self._schema, message)
        if isinstance(self._behind, Session):
            entries = SessionBuffer.of(self._behind).put(self._behind, entry)
        else:
            entries = ConnectionBuffer.of(self._behind).entries
            entries.append(entry)
        if alone or message.dedup_key is not None or entries.are_enough():
            self._insert(entry)
        return entry.outcome

    def _begin(self) -> None:
        if self.in_transaction():
            return
        # Two threads at once would begin two transactions of a Session, and the first would be
        # lost with all that is sent in it.
        beginning = self._buffer.beginning
        if not beginning.acquire(timeout=MAX_BEGINNING):
            raise self._unusable(AT_WORK)
        try:
            if not self.in_transaction():
                self._behind.begin()
        except InvalidRequestError:
            if not self.in_transaction():  # begun by another thread meanwhile
                raise self._unusable(AT_WORK) from None
        finally:
            beginning.release()

    @property
    def _buffer(self) -> SessionBuffer | ConnectionBuffer:
        if isinstance(self._behind, Session):
            return SessionBuffer.of(self._behind)
        return ConnectionBuffer.of(self._behind)

    def leave(self, *, failed: bool) -> None:
        """Insert what is still buffered.

        After an error too: whoever catches it may still commit. But then a failure to insert, which
        aborts the transaction, does not hide the error.
        """
        try:
            self._flush()
            if self._commits:  # which would roll back without a word
                self._check_not_failed(self._connection)
        except Exception:
            if not failed:
                raise
        finally:
            if failed and isinstance(self._behind, Session):
                SessionBuffer.of(self._behind).expect_rollback()

    async def aleave(self, *, failed: bool) -> None:
        """Insert what is still buffered."""
        if not self._asynchronous:
            self.leave(failed=failed)
        else:
            await self._run(lambda _: self.leave(failed=failed))

    def discard(self) -> None:
        """Forget what is buffered."""
        if isinstance(self._behind, Session):
            SessionBuffer.of(self._behind).discard(self._behind)
        else:
            ConnectionBuffer.of(self._behind).discard()

    def begin(self) -> AbstractContextManager[object]:
        """Return `begin()`, or `begin_nested()` where a transaction is in progress."""
        if self._asynchronous:
            raise self._unusable(ASYNCHRONOUS)
        self._commits = not self.in_transaction()
        block: Transaction | NestedTransaction | SessionTransaction = (
            self._behind.begin() if self._commits else self._behind.begin_nested()
        )
        return block

    def abegin(self) -> AbstractAsyncContextManager[object]:
        """Return `begin()`, or `begin_nested()` where a transaction is in progress."""
        if not isinstance(self._given, AsyncSession | AsyncConnection):
            raise self._unusable(SYNCHRONOUS)
        self._commits = not self.in_transaction()
        return self._given.begin() if self._commits else self._given.begin_nested()

    def in_transaction(self) -> bool:
        """Tell whether a transaction was begun, by hand or by a statement."""
        return self._behind.in_transaction()

    def is_given_up(self) -> bool:
        """Tell whether the transaction has ended, which only its code can have done."""
        return not self.in_transaction()

    def fetch(self, query: str, *parameters: object) -> Rows | Awaitable[Rows]:
        """Execute and fetch all."""
        self._check_driver()
        self._check_transaction()
        if self._asynchronous:
            return self._run(lambda behind: self._fetch(behind, query, parameters))
        return self._fetch(self._behind, query, parameters)

    def _fetch(self, behind: Session | Connection, query: str, parameters: Any) -> Rows:
        connection = connect(behind) if isinstance(behind, Session) else behind
        text = statement(query, self._schema, STYLES[connection.dialect.driver])
        try:
            return [tuple(row) for row in connection.exec_driver_sql(text, parameters)]
        except Exception as error:
            failure = explain(error, self._schema, ())
        raise failure

    def _insert(self, entry: Entry) -> None:
        """Insert what is buffered, if that needs no await; or refuse the message."""
        if self._asynchronous:
            return
        try:
            self._flush()
        except Exception:
            if isinstance(self._behind, Session):
                SessionBuffer.of(self._behind).remove(entry)
            raise

    def flush(self) -> None:
        """Insert what is buffered, if that needs no await."""
        if not self._asynchronous:
            self._flush()

    def _flush(self) -> None:
        if isinstance(self._behind, Session):
            SessionBuffer.of(self._behind).insert_if_free(self._behind)
        elif not self._behind.closed:
            buffer = ConnectionBuffer.of(self._behind)
            if buffer.entries:
                buffer.insert_if_free(self._behind)

    def _run(self, work: Any) -> Awaitable[Any]:
        given: Any = self._given
        ran: Awaitable[Any] = given.run_sync(work)
        return ran

    def _check_driver(self) -> None:
        """Refuse a database that is none of ours."""
        dialect = self._dialect
        if dialect is None:
            raise self._unusable(
                "it has no database of its own, only of its mappers: give"
                " session.connection(bind_arguments=...) instead"
            )
        if dialect.driver not in STYLES:
            raise self._unusable(
                f"its driver is {dialect.name}+{dialect.driver}; known are {', '.join(STYLES)}"
            )

    @property
    def _dialect(self) -> Any:
        try:
            bind = bind_of(self._behind) if isinstance(self._behind, Session) else self._behind
        except UnboundExecutionError:
            return None
        return bind.dialect

    def _check_transaction(self) -> None:
        """Refuse what could not commit a message."""
        if isinstance(self._behind, Session) and not (
            self._behind.is_active or is_connecting(self._behind)
        ):
            raise self._unusable(f"{FAILED}, or it is over already, as in an after_commit hook")
        connection = self._connection
        if connection is None:
            return
        if connection.closed:
            raise self._unusable(CLOSED)
        check_autocommit(connection)
        self._check_not_failed(connection)

    def _check_not_failed(self, connection: Connection | None) -> None:
        if connection is None or connection.closed:
            return
        driver: Any = connection.connection.driver_connection
        info = getattr(driver, "info", None)  # asyncpg has none, and cannot tell
        if info is not None and info.transaction_status in (INERROR, UNKNOWN):
            raise self._unusable(FAILED)

    @property
    def _connection(self) -> Connection | None:
        """The one that the transaction has begun, if it has."""
        if isinstance(self._behind, Session):
            return connection_of(self._behind, self._behind.get_transaction())
        return self._behind

    def _unusable(self, reason: str) -> UnusableTarget:
        return UnusableTarget.about(target=repr(self._given), reason=reason)


def target_for(target: Any, schema: str) -> SQLAlchemyTarget:
    """Return the Target for one of SQLAlchemy's. Raises UnusableTarget for anything else."""
    if isinstance(target, scoped_session | async_scoped_session):
        target = target()
    if isinstance(target, Session | Connection):
        return SQLAlchemyTarget(target, target, schema)
    if isinstance(target, AsyncSession):
        return SQLAlchemyTarget(target, target.sync_session, schema)
    if isinstance(target, AsyncConnection) and target.sync_connection is not None:
        return SQLAlchemyTarget(target, target.sync_connection, schema)
    raise UnusableTarget.about(
        target=described(target), reason="give a Session, or a Connection that is connected"
    )
