"""Django databases as targets, by their alias: each message is inserted as it is sent.

Django's own connection runs the INSERT, so rows are exactly where the ORM's are: inside `atomic`,
inside its savepoints, or, with no `atomic` around, durable when the call returns.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types

from celery_outbox.dedup import claims, unclaimed
from celery_outbox.errors import UnusableTarget
from celery_outbox.insert import CLAIM_DEDUP, Style, explain, insert, statement
from celery_outbox.message import Message
from celery_outbox.target import Rows, described

#: Seconds after which an idle connection is asked whether it still has a server.
IDLE: Final = 5.0
_last_use: Final[WeakKeyDictionary[Any, float]] = WeakKeyDictionary()


class DjangoTarget:
    """The transaction that a Django database is in, in this thread. See `Target`."""

    def __init__(self, alias: str, schema: str) -> None:
        self._alias = alias
        self._schema = schema
        self._joined: Any = None

    def join(self, *, blocking: bool) -> None:  # noqa: ARG002 - it blocks either way
        """See that there is a transaction to join, and remember whose."""
        self._check_transaction()
        self._joined = self._connection

    def put(self, message: Message) -> None:
        """Insert the message."""
        self._check_transaction()
        if self._joined is not None and self._joined is not self._connection:
            raise self._unusable(
                "the block was opened in another thread, and Django gives each its own connection."
                " Open one in this thread, or send after the other has ended"
            )
        self._insert(self._connection, message)

    def put_alone(self, message: Message) -> None:
        """Insert the message."""
        self.put(message)

    def put_unasked(self, message: Message) -> None:
        """Insert the message, in the transaction in progress or in one of its own.

        Raises UnusableTarget where only another database is in a transaction: its rollback would
        not take the message along.
        """
        self._check()
        if (other := self._other_in_atomic()) is not None:
            raise self._unusable(
                f"it is in no transaction, but {other!r} is, which would commit or roll back"
                " without the message. Set OUTBOX_DATABASE_ALIAS to the database that the message"
                f" belongs to, or give outbox={other!r}, where the outbox's tables are there too;"
                " to store it whatever becomes of the other, send it within"
                f" `with app.outbox.transaction({self._alias!r})`"
            )
        self._insert_unasked(message)

    def _other_in_atomic(self) -> str | None:
        """Return the alias of another database that is in `atomic` while this one is not."""
        if self._connection.in_atomic_block or not self._connection.get_autocommit():
            return None
        others = connections.all(initialized_only=True)
        return next((other.alias for other in others if other.in_atomic_block), None)

    def _insert_unasked(self, message: Message) -> None:
        connection = self._connection
        if not connection.in_atomic_block:
            _replace_if_lost(connection)
        self._insert(connection, message)
        _last_use[connection] = monotonic()

    def put_durably(self, message: Message) -> None:
        """Insert the message in a transaction of its own, whatever is in progress."""
        self._check_vendor()
        if self._connection.get_autocommit():
            self._check()
            self._insert_unasked(message)
            return
        another = self._connection.copy()
        # Not one of Django's pool: this thread may hold the last one there.
        another.settings_dict.get("OPTIONS", {}).pop("pool", None)
        try:
            another.set_autocommit(False)
            self._insert(another, message)
            another.commit()
        finally:
            another.close()

    def leave(self, *, failed: bool) -> None:
        """Do nothing: all is inserted."""

    async def aleave(self, *, failed: bool) -> None:
        """Do nothing: all is inserted."""

    def discard(self) -> None:
        """Do nothing: what rolls back takes its rows along."""

    def begin(self) -> AbstractContextManager[object]:
        """Return `atomic()`."""
        self._check()
        block: AbstractContextManager[object] = transaction.atomic(using=self._alias)
        return block

    def abegin(self) -> AbstractAsyncContextManager[object]:
        """Refuse: Django has no transactions to await."""
        raise self._unusable("Django has no asynchronous transactions: use `with` here")

    def in_transaction(self) -> bool:
        """Tell whether a transaction is in progress."""
        return not self._connection.get_autocommit()

    def fetch(self, query: str, *parameters: object) -> Rows:
        """Execute and fetch all."""
        self._check()
        text = statement(query, self._schema, Style.FORMAT)
        return self._execute(self._connection, text, parameters, ())

    def _insert(self, connection: Any, message: Message) -> None:
        messages = [message]
        if message.dedup_key is None:
            self._execute(connection, *insert(self._schema, messages, Style.FORMAT), messages)
            return
        # Claim and INSERT are one, also where each statement would be a transaction of its own.
        autocommit = connection.get_autocommit()
        with transaction.atomic(self._alias, savepoint=False) if autocommit else nullcontext():
            keys, ids = claims(messages)
            text = statement(CLAIM_DEDUP, self._schema, Style.FORMAT)
            rows = self._execute(connection, text, (keys, ids), messages)
            if stored := unclaimed(messages, keys, [first for (first,) in rows]):
                self._execute(connection, *insert(self._schema, stored, Style.FORMAT), stored)

    def _execute(
        self, connection: Any, text: str, parameters: Any, messages: Sequence[Message]
    ) -> Rows:
        try:
            with connection.cursor() as cursor:
                cursor.execute(text, parameters)
                return cursor.fetchall() if cursor.description else []
        except Exception as error:
            failure = explain(error, self._schema, messages)
            if connection.in_atomic_block:  # it must not commit, should somebody catch the error
                connection.set_rollback(True)
        raise failure

    def _check_transaction(self) -> None:
        """Refuse what is in no transaction that could commit a message."""
        self._check()
        if self._connection.get_autocommit():
            raise self._unusable(
                "it is in autocommit mode. Use `with transaction.atomic():`, or leave `using` out:"
                " what is sent then is stored at once"
            )

    def _check_vendor(self) -> None:
        """Refuse what is no Postgres."""
        if self._connection.vendor != "postgresql":
            raise self._unusable("it is not a Postgres database")

    def _check(self) -> None:
        """Refuse what could not commit a message."""
        self._check_vendor()
        if self._connection.needs_rollback:
            raise self._unusable("its transaction has failed and can only be rolled back")

    @property
    def _connection(self) -> Any:
        return connections[self._alias]

    def _unusable(self, reason: str) -> UnusableTarget:
        return UnusableTarget.about(target=f"Django database {self._alias!r}", reason=reason)


def _replace_if_lost(connection: Any) -> None:
    """Have Django connect again where the server has ended the connection.

    Nobody else may notice in a process without requests, such as beat.
    """
    if connection.errors_occurred:
        connection.close_if_unusable_or_obsolete()
    idle = monotonic() - _last_use.get(connection, monotonic())
    if idle > IDLE and connection.get_autocommit() and not connection.is_usable():
        connection.close()


def target_for(target: object, schema: str) -> DjangoTarget:
    """Return the Target for the alias of a Django database. Raises UnusableTarget."""
    if not isinstance(target, str) or target not in connections:
        raise UnusableTarget.about(
            target=described(target),
            reason="Django has no database of this name, and it is no Connection",
        )
    return DjangoTarget(target, schema)
