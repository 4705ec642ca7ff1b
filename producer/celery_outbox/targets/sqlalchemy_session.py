"""What is sent in a SQLAlchemy Session: with its connection, once it has one.

A Session asks for a connection only when it needs one, and begins savepoints as late. Until then
messages wait with the Session. Of one that is closed without a commit, though nothing failed, the
log tells what it took along.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Lock, RLock
from typing import Any, Final, cast

from sqlalchemy import Connection, event, table, update
from sqlalchemy.exc import InvalidRequestError, UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.session import SessionTransactionState

from celery_outbox.errors import UnusableTarget
from celery_outbox.statements.commands import Entries, Entry
from celery_outbox.targets.sqlalchemy_buffer import ConnectionBuffer

logger = logging.getLogger(__name__)

_KEY: Final = "_celery_outbox"
#: By what a session that reads and writes on several databases tells them apart. Those that follow
#: SQLAlchemy's own example know UPDATE and DELETE, and take a bare INSERT for something to read.
_WRITING: Final = update(table("message"))


class SessionBuffer:
    """The messages sent in one Session and not yet inserted."""

    def __init__(self) -> None:
        #: What was sent in a transaction, or savepoint, that SQLAlchemy has not begun yet.
        self._waiting = Entries()
        self._waiting_for: SessionTransaction | None = None
        #: Tasks sent in the transaction in progress, each once.
        self._tasks: dict[str, None] = {}
        #: Held while the session is asked for its connection.
        self._asking = Lock()
        #: Held while a transaction is begun.
        self.beginning = RLock()

    @classmethod
    def of(cls, session: Session) -> "SessionBuffer":
        """Return the one of `session`, which is there for as long as the session."""
        own = vars(session)
        found = cast("SessionBuffer | None", own.get(_KEY))
        if found is None:
            found = cast("SessionBuffer", own.setdefault(_KEY, cls()))
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
            "after_rollback": cls._after_rollback,
            "after_soft_rollback": cls.discard,
            "after_transaction_end": cls._after_end,
        }
        for name, react in reactions.items():
            event.listen(Session, name, cls._to_the_one_of(react))

    @classmethod
    def _to_the_one_of(cls, react: Callable[..., None]) -> Callable[..., None]:
        def forward(session: Session, *details: Any) -> None:
            if found := vars(session).get(_KEY):
                react(found, session, *details)

        return forward

    def put(self, session: Session, entry: Entry) -> Entries:
        """Add to the buffer of the connection, or to what waits for it, and return that."""
        self._tasks[entry.message.task] = None
        innermost = session.get_nested_transaction() or session.get_transaction()
        connection = connection_of(session, innermost)
        if connection is not None:
            entries = ConnectionBuffer.of(connection).entries
        else:
            self._waiting_for = innermost
            entries = self._waiting
        entries.append(entry)
        return entries

    def remove(self, entry: Entry) -> None:
        """Forget a message that waits, as its sender is told that it could not be stored."""
        with suppress(ValueError):  # it waits no more: then it fails with its transaction
            self._waiting.remove(entry)

    def has_entries(self, session: Session) -> bool:
        """Tell whether anything is not inserted yet."""
        connection = connection_of(session, session.get_transaction())
        return bool(self._waiting or (connection and ConnectionBuffer.of(connection).entries))

    def insert_if_free(self, session: Session) -> None:
        """Insert what is buffered, unless the session is at work in another thread or task.

        Then it is inserted with the next event, the COMMIT at the latest.
        """
        if not self.has_entries(session) or not self._asking.acquire(blocking=False):
            return
        try:
            connection = connect(session)
        except InvalidRequestError as error:
            if error.code != "isce":  # "concurrent operations are not permitted"
                raise
            return
        finally:
            self._asking.release()
        buffer = ConnectionBuffer.of(connection)
        self._move_to(buffer)
        buffer.insert_if_free(connection)

    def insert(self, session: Session) -> None:
        """Insert what is buffered; the session begins what it has not begun yet."""
        if self.has_entries(session):
            connection = connect(session)
            buffer = ConnectionBuffer.of(connection)
            self._move_to(buffer)
            buffer.insert(connection)
        elif begun := connection_of(session, session.get_transaction()):
            ConnectionBuffer.of(begun).insert(begun)  # waits for what is being inserted

    def discard(self, session: Session, *_: Any) -> None:
        """Forget what is buffered: all of it was sent in the innermost transaction."""
        self._forget_waiting()
        if connection := connection_of(session, session.get_transaction()):
            ConnectionBuffer.of(connection).discard()

    def expect_rollback(self) -> None:
        """Take note that the transaction is not going to be committed, as something failed."""
        self._tasks.clear()

    def _after_create(self, session: Session, transaction: SessionTransaction) -> None:
        """Begin a savepoint at once, so that what was sent before it is inserted before it."""
        if transaction.nested and self.has_entries(session):
            connect(session)

    def _after_begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        if transaction is self._waiting_for and connection is connection_of(session, transaction):
            self._move_to(ConnectionBuffer.of(connection))

    def _move_to(self, buffer: ConnectionBuffer) -> None:
        while self._waiting:  # one by one, as another thread may add meanwhile
            buffer.entries.append(self._waiting.popleft())
        self._waiting_for = None

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_for = None

    def _after_commit(self, session: Session) -> None:
        if session.get_nested_transaction() is None:
            self._tasks.clear()
        if self._waiting:
            self._forget_waiting()
            raise UnusableTarget.about(
                target=repr(session),
                reason="its commit was over before the message could be stored",
            )

    def _after_rollback(self, _session: Session) -> None:
        self._tasks.clear()

    def _after_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is not None:
            return
        self._forget_waiting()
        # Of a commit nothing is left, unless another thread sent as it was going on.
        late = [entry.message.task for entry in _left_behind(transaction)]
        if late or (self._tasks and sys.exc_info()[1] is None):
            logger.warning(
                "%s: sent in a transaction of %s that was closed without a commit, so nothing is"
                " stored. Commit after sending, or roll back to say that this was meant",
                ", ".join([*dict.fromkeys([*self._tasks, *late])][:5]),
                repr(session),  # whoever keeps the record does not keep the session
            )
        self._tasks.clear()


def _left_behind(transaction: SessionTransaction) -> list[Entry]:
    """Return what is still buffered for connections that are closed with the transaction."""
    connections = {begun[0] for begun in transaction._connections.values()}
    buffers = [ConnectionBuffer.of(connection) for connection in connections if connection.closed]
    return [entry for buffer in buffers for entry in buffer.entries]


SessionBuffer.listen()


def bind_of(session: Session) -> Any:
    """Return the engine or connection that the session writes to.

    Raises UnboundExecutionError where it knows only the databases of its mappers.
    """
    return session.get_bind(clause=_WRITING)


def connect(session: Session) -> Connection:
    """Return the connection that the session writes on, in its transaction."""
    return session.connection(bind_arguments={"clause": _WRITING})


def connection_of(session: Session, transaction: SessionTransaction | None) -> Connection | None:
    """Return the connection that `transaction` has begun itself, if it has."""
    if transaction is None:
        return None
    try:
        begun: Any = transaction._connections.get(bind_of(session))
    except UnboundExecutionError:  # of its mappers' databases only, and so not of ours
        return None
    return None if begun is None else cast(Connection, begun[0])


def is_connecting(session: Session) -> bool:
    """Tell whether another thread or task is getting the session its connection."""
    transaction = session.get_transaction()
    return (
        transaction is not None
        and transaction._state is SessionTransactionState.PROVISIONING_CONNECTION
    )
