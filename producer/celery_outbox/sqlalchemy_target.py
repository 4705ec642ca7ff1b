"""SQLAlchemy sessions and connections as targets, synchronous and on asyncio.

How rows get into their transactions is the job of sqlalchemy_pending.
"""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from sqlalchemy import Connection, NestedTransaction, Transaction
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
)
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from celery_outbox.errors import UnusableTarget
from celery_outbox.insert import explain, statement
from celery_outbox.message import Message
from celery_outbox.sqlalchemy_pending import (
    STYLES,
    OnConnection,
    OnSession,
    check_autocommit,
    connection_of,
)
from celery_outbox.target import Rows

#: What libpq says of a transaction that has failed, and of a connection that is lost.
INERROR, UNKNOWN = 3, 4
FAILED = "its transaction has failed and can only be rolled back"


class SQLAlchemyTarget:
    """The transaction of a Session or a Connection, or of what is one behind asyncio."""

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

    def join(self, *, blocking: bool) -> None:
        """Put the list of pending messages in force."""
        if blocking and self._asynchronous:
            raise self._unusable("it is asynchronous: use `async with` here")
        self._check()

    def put(self, message: Message) -> None:
        """Add to the list. As any statement does, this begins a transaction where there is none."""
        self._check()
        if not self.in_transaction():
            self._behind.begin()
        if isinstance(self._behind, Session):
            OnSession.of(self._behind, self._schema).put(self._behind, message)
        else:
            OnConnection.of(self._behind, self._schema).messages.append(message)
        if message.dedup_key is not None and not self._asynchronous:
            self._insert()

    def put_alone(self, message: Message) -> None:
        """Insert at once; where the target is asynchronous, with whatever it does next."""
        self.put(message)
        if not self._asynchronous:
            self._insert()

    def leave(self, *, failed: bool) -> None:
        """Insert what is still on the list.

        After an error too: whoever catches it may still commit. But then a failure to insert, which
        aborts the transaction, does not hide the error.
        """
        try:
            self._insert()
        except Exception:
            if not failed:
                raise

    async def aleave(self, *, failed: bool) -> None:
        """Insert what is still on the list."""
        if not self._asynchronous:
            self.leave(failed=failed)
        else:
            await self._run(lambda _: self.leave(failed=failed))

    def discard(self) -> None:
        """Empty the list."""
        if isinstance(self._behind, Session):
            OnSession.of(self._behind, self._schema).discard(self._behind)
        else:
            OnConnection.of(self._behind, self._schema).discard()

    def begin(self) -> AbstractContextManager[object]:
        """Return `begin()`, or `begin_nested()` where a transaction is in progress."""
        if self._asynchronous:
            raise self._unusable("it is asynchronous: use `async with` here")
        block: Transaction | NestedTransaction | SessionTransaction = (
            self._behind.begin_nested() if self.in_transaction() else self._behind.begin()
        )
        return block

    def abegin(self) -> AbstractAsyncContextManager[object]:
        """Return `begin()`, or `begin_nested()` where a transaction is in progress."""
        if not isinstance(self._given, AsyncSession | AsyncConnection):
            raise self._unusable("it is not asynchronous: use `with` here")
        return self._given.begin_nested() if self.in_transaction() else self._given.begin()

    def in_transaction(self) -> bool:
        """Tell whether a transaction was begun, by hand or by a statement."""
        return self._behind.in_transaction()

    def fetch(self, query: str, *parameters: object) -> Rows | Awaitable[Rows]:
        """Execute and fetch all."""
        self._check()
        if self._asynchronous:
            return self._run(lambda behind: self._fetch(behind, query, parameters))
        return self._fetch(self._behind, query, parameters)

    def _fetch(self, behind: Session | Connection, query: str, parameters: Any) -> Rows:
        connection = behind.connection() if isinstance(behind, Session) else behind
        text = statement(query, self._schema, STYLES[connection.dialect.driver])
        try:
            return [tuple(row) for row in connection.exec_driver_sql(text, parameters)]
        except Exception as error:
            failure = explain(error, self._schema, ())
        raise failure

    def _insert(self) -> None:
        if isinstance(self._behind, Session):
            OnSession.of(self._behind, self._schema).insert(self._behind)
            return
        OnConnection.of(self._behind, self._schema).insert(self._behind)

    def _run(self, work: Any) -> Awaitable[Any]:
        given: Any = self._given
        ran: Awaitable[Any] = given.run_sync(work)
        return ran

    def _check(self) -> None:
        """Refuse what could not commit a message."""
        if isinstance(self._behind, Session):
            if not self._behind.is_active:
                raise self._unusable(f"{FAILED}, or it is over already, as in an after_commit hook")
            self._check_driver(self._dialect_of(self._behind))
            connection = connection_of(self._behind, self._behind.get_transaction())
        else:
            self._check_driver(self._behind.dialect)
            connection = self._behind
        if connection is not None:
            self._check_connection(connection)

    def _check_connection(self, connection: Connection) -> None:
        if connection.closed:
            raise self._unusable("it is closed")
        check_autocommit(connection)
        driver: Any = connection.connection.driver_connection
        info = getattr(driver, "info", None)  # asyncpg has none, and cannot tell
        if info is not None and info.transaction_status in (INERROR, UNKNOWN):
            raise self._unusable(FAILED)

    def _dialect_of(self, session: Session) -> Any:
        try:
            return session.get_bind().dialect
        except UnboundExecutionError:
            pass
        raise self._unusable(
            "it has no database of its own, only of its mappers: give"
            " session.connection(bind_arguments=...) instead"
        )

    def _check_driver(self, dialect: Any) -> None:
        if dialect.driver not in STYLES:
            raise self._unusable(
                f"its driver is {dialect.name}+{dialect.driver}; known are {', '.join(STYLES)}"
            )

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
        target=repr(target), reason="give a Session, or a Connection that is connected"
    )
