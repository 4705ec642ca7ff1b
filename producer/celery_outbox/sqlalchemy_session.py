"""What is sent in a SQLAlchemy Session: with its connection, once it has one.

A Session asks for a connection only when it needs one, and begins savepoints as late. Until then
messages wait with the Session. One that is closed without a commit, though nothing failed, is told
in the log what it took along.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, cast

from sqlalchemy import Connection, event
from sqlalchemy.exc import InvalidRequestError, UnboundExecutionError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.session import SessionTransactionState

from celery_outbox.errors import UnusableTarget
from celery_outbox.sqlalchemy_pending import OnConnection
from celery_outbox.storing import Queued

logger = logging.getLogger(__name__)

_KEY: Final = "_celery_outbox"


class OnSession:
    """The messages sent in one Session and not yet inserted."""

    def __init__(self) -> None:
        #: What was sent in a transaction, or savepoint, that SQLAlchemy has not begun yet.
        self._waiting: deque[Queued] = deque()
        self._waiting_for: SessionTransaction | None = None
        #: Tasks sent in the transaction in progress, each once.
        self._tasks: dict[str, None] = {}
        self._asking = False

    @classmethod
    def of(cls, session: Session) -> "OnSession":
        """Return the one of `session`, which is there for as long as the session."""
        own = vars(session)
        found = cast("OnSession | None", own.get(_KEY))
        if found is None:
            found = cast("OnSession", own.setdefault(_KEY, cls()))
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

    def put(self, session: Session, queued: Queued) -> None:
        """Add to the list of the connection, or of what waits for it."""
        self._tasks[queued.message.task] = None
        innermost = session.get_nested_transaction() or session.get_transaction()
        connection = connection_of(session, innermost)
        if connection is not None:
            OnConnection.of(connection).queue.append(queued)
        else:
            self._waiting_for = innermost
            self._waiting.append(queued)

    def take_back(self, queued: Queued) -> None:
        """Forget a message that waits, as its sender is told that it could not be stored."""
        with suppress(ValueError):  # it waits no more: then it fails with its transaction
            self._waiting.remove(queued)

    def pending(self, session: Session) -> bool:
        """Tell whether anything is not inserted yet."""
        connection = connection_of(session, session.get_transaction())
        return bool(self._waiting or (connection and OnConnection.of(connection).queue))

    def insert_if_free(self, session: Session) -> None:
        """Insert what is pending, unless the session is at work in another thread or task.

        Then it is inserted with the next event, the COMMIT at the latest.
        """
        if self._asking or not self.pending(session):
            return
        self._asking = True
        try:
            connection = session.connection()
        except InvalidRequestError as error:
            if error.code != "isce":  # "concurrent operations are not permitted"
                raise
            return
        finally:
            self._asking = False
        on_connection = OnConnection.of(connection)
        self._move_to(on_connection)
        on_connection.insert_if_free(connection)

    def insert(self, session: Session) -> None:
        """Insert what is pending; the session begins what it has not begun yet."""
        if self.pending(session):
            connection = session.connection()
            on_connection = OnConnection.of(connection)
            self._move_to(on_connection)
            on_connection.insert(connection)
        elif begun := connection_of(session, session.get_transaction()):
            OnConnection.of(begun).insert(begun)  # waits for what is being inserted

    def discard(self, session: Session, *_: Any) -> None:
        """Forget what is pending: all of it was sent in the innermost transaction."""
        self._forget_waiting()
        if connection := connection_of(session, session.get_transaction()):
            OnConnection.of(connection).discard()

    def excuse(self) -> None:
        """Take note that the transaction is not going to be committed, as something failed."""
        self._tasks.clear()

    def _after_create(self, session: Session, transaction: SessionTransaction) -> None:
        """Begin a savepoint at once, so that what was sent before it is inserted before it."""
        if transaction.nested and self.pending(session):
            session.connection()

    def _after_begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        if transaction is self._waiting_for and connection is connection_of(session, transaction):
            self._move_to(OnConnection.of(connection))

    def _move_to(self, on_connection: OnConnection) -> None:
        while self._waiting:  # one by one, as another thread may add meanwhile
            on_connection.queue.append(self._waiting.popleft())
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
        late = [queued.message.task for queued in _left_behind(transaction)]
        if late or (self._tasks and sys.exc_info()[1] is None):
            logger.warning(
                "%s: sent in a transaction of %s that was closed without a commit, so nothing is"
                " stored. Commit after sending, or roll back to say that this was meant",
                ", ".join([*dict.fromkeys([*self._tasks, *late])][:5]),
                repr(session),  # whoever keeps the record does not keep the session
            )
        self._tasks.clear()


def _left_behind(transaction: SessionTransaction) -> list[Queued]:
    """Return what is still on the lists of connections that are closed with the transaction."""
    connections = {begun[0] for begun in transaction._connections.values()}
    lists = [OnConnection.of(connection) for connection in connections if connection.closed]
    return [each for on_connection in lists for each in on_connection.queue]


OnSession.listen()


def connection_of(session: Session, transaction: SessionTransaction | None) -> Connection | None:
    """Return the connection that `transaction` has begun itself, if it has."""
    if transaction is None:
        return None
    try:
        begun: Any = transaction._connections.get(session.get_bind())
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
