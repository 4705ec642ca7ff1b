"""Django's database for messages that no transaction was named for.

They join the transaction that its connection is in; with none in progress they are durable when the
call returns.
"""

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary

from django.db import connections  # type: ignore[import-untyped]  # ships no types

from celery_outbox.message import Message, Parcel
from celery_outbox.statements.commands import Outcome
from celery_outbox.targets.django import DjangoTarget

#: Seconds after which an idle connection is asked whether it still has a server.
IDLE: Final = 5.0
_last_use: Final[WeakKeyDictionary[Any, float]] = WeakKeyDictionary()


class DjangoStore:
    """The outbox of a Django database. See `Store`."""

    def __init__(self, alias: str, schema: str) -> None:
        self._alias = alias
        self._target = DjangoTarget(alias, schema)

    def store(self, message: Parcel) -> Outcome:
        """Insert the message, in the transaction in progress or in one of its own.

        Raises UnusableTarget where only another database is in a transaction: its rollback would
        not take the message along.
        """
        self._check()
        return self._insert(partial(self._target.insert, message=message))

    def put_many(self, message: Parcel) -> Outcome:
        """Take one of many messages: as `store` does, but buffered where a transaction allows it.

        Raises UnusableTarget, as `store` does.
        """
        self._check()
        if self._connection.get_autocommit():
            return self._insert(partial(self._target.insert, message=message))
        return self._target.put_many(message)

    def flush(self) -> None:
        """Insert what is buffered."""
        self._target.flush()

    def _check(self) -> None:
        """Refuse what could not be stored where it belongs."""
        self._target.check()
        if (other := self._other_in_atomic()) is not None:
            raise self._target.unusable(
                f"it is in no transaction, but {other!r} is, which would commit or roll back"
                " without the message. Set OUTBOX_DATABASE_ALIAS to the database that the message"
                f" belongs to, or give outbox={other!r}, where the outbox's tables are there too;"
                " to store it whatever becomes of the other, send it within"
                f" `with app.outbox.transaction({self._alias!r})`"
            )

    def store_apart(self, message: Parcel) -> Outcome:
        """Insert the message in a transaction of its own, whatever is in progress."""
        return self._apart(partial(self._target.insert, message=message))

    def store_once(self, message: Message, seconds: float) -> Outcome:
        """Insert the message in a transaction of its own, unless it was. See `Store`."""
        return self._apart(partial(self._target.insert_once, message=message, seconds=seconds))

    def _apart(self, insert: Callable[[Any], Outcome]) -> Outcome:
        self._target.check_vendor()
        if self._connection.get_autocommit():
            self._target.check()
            return self._insert(insert)
        another = self._connection.copy()
        # Not one of Django's pool: this thread may hold the last one there.
        another.settings_dict.get("OPTIONS", {}).pop("pool", None)
        try:
            another.set_autocommit(False)
            outcome = insert(another)
            another.commit()
        finally:
            another.close()
        return outcome

    def is_alone(self) -> bool:
        """Tell whether no transaction is in progress, of another database either."""
        return bool(self._connection.get_autocommit()) and self._other_in_atomic() is None

    def _other_in_atomic(self) -> str | None:
        """Return the alias of another database that is in `atomic` while this one is not."""
        if self._connection.in_atomic_block or not self._connection.get_autocommit():
            return None
        others = connections.all(initialized_only=True)
        return next((other.alias for other in others if other.in_atomic_block), None)

    def _insert(self, insert: Callable[[Any], Outcome]) -> Outcome:
        connection = self._connection
        if not connection.in_atomic_block:
            _replace_if_lost(connection)
        outcome = insert(connection)
        _last_use[connection] = monotonic()
        return outcome

    @property
    def _connection(self) -> Any:
        return connections[self._alias]


def _replace_if_lost(connection: Any) -> None:
    """Have Django connect again where the server has ended the connection.

    Nobody else may notice in a process without requests, such as beat.
    """
    if connection.errors_occurred:
        connection.close_if_unusable_or_obsolete()
    idle = monotonic() - _last_use.get(connection, monotonic())
    if idle > IDLE and connection.get_autocommit() and not connection.is_usable():
        connection.close()
