"""Inserts messages right before the next thing a SQLAlchemy connection does, many in one statement.

SQLAlchemy's events tell of every statement, SAVEPOINT included, every COMMIT and every ROLLBACK
before it happens. So each row is exactly where the code sent it, as with psycopg's own connections,
and sending needs no await: on asyncio the events come where SQLAlchemy itself may wait.

A Session asks for a connection only when it needs one, and begins savepoints as late. Until then
messages wait with the Session.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Final, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

from celery_outbox.dedup import claims, unclaimed
from celery_outbox.errors import UnusableTarget
from celery_outbox.insert import CLAIM_DEDUP, Style, explain, insert, sqlstate, statement
from celery_outbox.message import Message

STYLES: Final = {
    "psycopg": Style.PSYCOPG,
    "psycopg_async": Style.PSYCOPG,
    "psycopg2": Style.FORMAT,
    "asyncpg": Style.NUMBERED,
}


class OnConnection:
    """The messages sent on one connection and not yet inserted."""

    _all: ClassVar[WeakKeyDictionary[Connection, "OnConnection"]] = WeakKeyDictionary()

    def __init__(self, schema: str) -> None:
        self.messages: deque[Message] = deque()
        self._schema = schema

    @classmethod
    def of(cls, connection: Connection, schema: str) -> "OnConnection":
        """Return the one of `connection`, which is there for as long as the connection object."""
        found = cls._all.get(connection)
        if found is None:
            found = cls._all[connection] = cls(schema)
            for name in ("before_cursor_execute", "prepare_twophase"):
                event.listen(connection, name, found.insert)
            for name in ("commit", "commit_twophase"):
                event.listen(connection, name, found._before_commit)
            for name in ("rollback", "rollback_savepoint", "rollback_twophase"):
                event.listen(connection, name, found.discard)
        return found

    def insert(self, connection: Connection, *_: Any) -> None:
        """Insert what is on the list, in the transaction `connection` is in."""
        messages = []
        while self.messages:  # one by one, as another thread may add meanwhile
            messages.append(self.messages.popleft())
        if not messages:
            return
        check_autocommit(connection)
        try:
            self._store(connection, messages)
        except Exception as error:
            failure = explain(error, self._schema, messages)
            if isinstance(error, DBAPIError):
                error.hide_parameters = True  # they are somebody's payload
            if sqlstate(error) is None:  # the server does not know, and would still commit
                connection.invalidate()
        else:
            return
        raise failure

    def _store(self, connection: Connection, messages: list[Message]) -> None:
        style, options = STYLES[connection.dialect.driver], {"stream_results": False}
        keys, ids = claims(messages)
        if keys:
            claim = statement(CLAIM_DEDUP, self._schema, style)
            rows = connection.exec_driver_sql(claim, (keys, ids), execution_options=options)
            messages = unclaimed(messages, keys, [first for (first,) in rows.fetchall()])
        if messages:
            command = insert(self._schema, messages, style)
            connection.exec_driver_sql(*command, execution_options=options)

    def _before_commit(self, connection: Connection, *_: Any) -> None:
        """Insert, or roll back: SQLAlchemy takes a COMMIT that fails for the end."""
        try:
            self.insert(connection)
        except Exception:
            if not connection.invalidated:
                connection.dialect.do_rollback(connection.connection)
            raise

    def discard(self, *_: Any) -> None:
        """Empty the list.

        When something rolls back, all that is on it was sent since: the SAVEPOINT it rolls back to
        was a statement, and had everything before it inserted.
        """
        self.messages.clear()


class OnSession:
    """The messages sent in one Session: with its connection, once it has one."""

    _all: ClassVar[WeakKeyDictionary[Session, "OnSession"]] = WeakKeyDictionary()

    def __init__(self, schema: str) -> None:
        self._schema = schema
        #: What was sent in a transaction, or savepoint, that SQLAlchemy has not begun yet.
        self._waiting: deque[Message] = deque()
        self._waiting_for: SessionTransaction | None = None

    @classmethod
    def of(cls, session: Session, schema: str) -> "OnSession":
        """Return the one of `session`, which is there for as long as the session."""
        found = cls._all.get(session)
        if found is None:
            found = cls._all[session] = cls(schema)
        return found

    @classmethod
    def listen(cls) -> None:
        """Have every Session tell of what it does.

        Once, not per session: that costs more, and fails within a listener of somebody else's.
        """
        reactions: dict[str, Callable[..., None]] = {
            "after_begin": cls._after_begin,
            "after_transaction_create": cls._after_create,
            "before_commit": cls.insert,
            "after_commit": cls._after_commit,
            "after_soft_rollback": cls.discard,
            "after_transaction_end": cls._after_end,
        }
        for name, react in reactions.items():
            event.listen(Session, name, cls._to_the_one_of(react))

    @classmethod
    def _to_the_one_of(cls, react: Callable[..., None]) -> Callable[..., None]:
        def forward(session: Session, *details: Any) -> None:
            if found := cls._all.get(session):
                react(found, session, *details)

        return forward

    def put(self, session: Session, message: Message) -> None:
        """Add to the list of the connection, or of what waits for it."""
        innermost = session.get_nested_transaction() or session.get_transaction()
        connection = connection_of(session, innermost)
        if connection is not None:
            OnConnection.of(connection, self._schema).messages.append(message)
        else:
            self._waiting.append(message)
            self._waiting_for = innermost

    def pending(self, session: Session) -> bool:
        """Tell whether anything is not inserted yet."""
        connection = connection_of(session, session.get_transaction())
        return bool(
            self._waiting or (connection and OnConnection.of(connection, self._schema).messages)
        )

    def insert(self, session: Session) -> None:
        """Insert what is pending; the session begins what it has not begun yet."""
        if self.pending(session):
            connection = session.connection()
            on_connection = OnConnection.of(connection, self._schema)
            self._move_to(on_connection)
            on_connection.insert(connection)

    def discard(self, session: Session, *_: Any) -> None:
        """Forget what is pending: all of it was sent in the innermost transaction."""
        self._waiting.clear()
        if connection := connection_of(session, session.get_transaction()):
            OnConnection.of(connection, self._schema).discard()

    def _after_create(self, session: Session, transaction: SessionTransaction) -> None:
        """Begin a savepoint at once, so that what was sent before it is inserted before it."""
        if transaction.nested and self.pending(session):
            session.connection()

    def _after_begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        if transaction is self._waiting_for and connection is connection_of(session, transaction):
            self._move_to(OnConnection.of(connection, self._schema))

    def _move_to(self, on_connection: OnConnection) -> None:
        on_connection.messages.extend(self._waiting)
        self._waiting.clear()

    def _after_commit(self, session: Session) -> None:
        if self._waiting:
            self._waiting.clear()
            raise UnusableTarget.about(
                target=repr(session),
                reason="its commit was over before the message could be stored",
            )

    def _after_end(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self._waiting.clear()


OnSession.listen()


def connection_of(session: Session, transaction: SessionTransaction | None) -> Connection | None:
    """Return the connection that `transaction` has begun itself, if it has."""
    if transaction is None:
        return None
    begun: Any = transaction._connections.get(session.get_bind())
    return None if begun is None else cast(Connection, begun[0])


def check_autocommit(connection: Connection) -> None:
    """Raise UnusableTarget where each statement would commit by itself."""
    dbapi: Any = connection.connection.dbapi_connection
    if dbapi.autocommit:
        raise UnusableTarget.about(
            target=repr(connection), reason="it is in autocommit mode, with no transaction to join"
        )
