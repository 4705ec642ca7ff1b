"""Django databases as targets, by their alias: each message is inserted as it is sent.

Django's own connection runs the INSERT, so rows are exactly where the ORM's are: inside `atomic`
and inside its savepoints. Only of many sent at a time some wait, where the driver is psycopg, for
what its connection does next.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types

from celery_outbox.errors import UnusableTarget
from celery_outbox.message import Message, Parcel
from celery_outbox.statements.commands import Entry, Outcome, Rows, commands, execute_all
from celery_outbox.statements.insert import Style, explain, insert_once, sqlstate, statement
from celery_outbox.targets.immediate import Immediate
from celery_outbox.targets.target import FAILED, INERROR, described

if TYPE_CHECKING:
    from celery_outbox.targets.psycopg import PsycopgTarget

#: A project or a login may have another level by default.
READ_COMMITTED: Final = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"


class DjangoTarget(Immediate):
    """The transaction that a Django database is in, in this thread. See `Target`."""

    def __init__(self, alias: str, schema: str) -> None:
        self._alias = alias
        self._schema = schema
        self._joined: Any = None

    def join(self, *, blocking: bool) -> None:  # noqa: ARG002 - it blocks either way
        """See that there is a transaction to join, and remember whose."""
        self._check_transaction()
        self._joined = self._connection

    def put(self, message: Parcel) -> Outcome:
        """Insert the message."""
        self._check_joined()
        return self.insert(self._connection, message)

    def put_many(self, message: Parcel) -> Outcome:
        """Buffer the message where the driver's own connection does: where that is psycopg's.

        Nothing gets past that, Django's statements included: it is inserted before the next one.
        """
        self._check_joined()
        driver = self._driver()
        if driver is None:
            return self.insert(self._connection, message)
        with self._giving_up():
            return driver.put(message)

    def flush(self) -> None:
        """Insert what is buffered."""
        driver = self._driver()
        if driver is None or not driver.has_entries():
            return
        if self._connection.needs_rollback:
            driver.discard()
        self.check()
        with self._giving_up():
            driver.flush()

    def _driver(self) -> "PsycopgTarget | None":
        """Return the connection of the driver as a target that buffers, if it is one."""
        try:
            from psycopg import Connection

            from celery_outbox.targets.psycopg import PsycopgTarget
        except ImportError:  # Django has psycopg2, and there is no other
            return None
        connection = self._connection.connection
        known = isinstance(connection, Connection)
        return PsycopgTarget(connection, self._schema) if known else None

    def _check_joined(self) -> None:
        """Refuse what is in no transaction, or not in the one of the block."""
        self._check_transaction()
        if self._joined is not None and self._joined is not self._connection:
            raise self.unusable(
                "the block was opened in another thread, and Django gives each its own connection."
                " Open one in this thread, or send after the other has ended"
            )

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Be the block of `atomic()`."""
        self.check()
        with transaction.atomic(using=self._alias):
            yield
            driver = self._connection.connection
            if driver is not None and driver.info.transaction_status == INERROR:
                raise self.unusable(FAILED)  # or the COMMIT would roll back without a word

    def abegin(self) -> AbstractAsyncContextManager[object]:
        """Refuse: Django has no transactions to await."""
        raise self.unusable("Django has no asynchronous transactions: use `with` here")

    def in_transaction(self) -> bool:
        """Tell whether a transaction is in progress."""
        return not self._connection.get_autocommit()

    def is_given_up(self) -> bool:
        """Tell whether `atomic` will roll back, as set_rollback() asks."""
        return bool(self._connection.needs_rollback)

    def fetch(self, query: str, *parameters: object) -> Rows:
        """Execute and fetch all."""
        self.check()
        text = statement(query, self._schema, Style.FORMAT)
        return self._execute(self._connection, text, parameters, ())

    def insert(self, connection: Any, message: Parcel) -> Outcome:
        """Insert the message with this connection, which is one of Django's to this database."""

        def execute(text: str, parameters: Any) -> Rows:
            return self._execute(connection, text, parameters, [message])

        entry = Entry.of(self._schema, message)
        # Claim and INSERT are one, also where each statement would be a transaction of its own.
        alone = message.dedup_key is None or not connection.get_autocommit()
        with nullcontext() if alone else transaction.atomic(self._alias, savepoint=False):
            execute_all(commands(self._schema, [entry], Style.FORMAT), execute)
        return entry.outcome

    def insert_once(self, connection: Any, message: Message, seconds: float) -> Outcome:
        """Insert the message, unless it was within so many seconds."""
        text, parameters = insert_once(self._schema, message, seconds, Style.FORMAT)
        alone = connection.get_autocommit() and seconds
        with transaction.atomic(self._alias, savepoint=False) if alone else nullcontext():
            if seconds:  # behind an earlier attempt it must see what that has stored
                self._execute(connection, READ_COMMITTED, (), [message])
            self._execute(connection, text, parameters, [message])
        return Outcome(message)

    def _execute(
        self, connection: Any, text: str, parameters: Any, messages: Sequence[Parcel]
    ) -> Rows:
        try:
            with connection.cursor() as cursor:
                cursor.execute(text, parameters)
                return cursor.fetchall() if cursor.description else []
        except Exception as error:
            failure = explain(error, self._schema, messages)
            self._give_up(connection, error)
        except BaseException as interrupt:
            self._give_up(connection, interrupt)
            raise
        raise failure

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Have `atomic` roll back after an error; otherwise psycopg's buffer sees to that."""
        try:
            yield
        except BaseException:
            if self._connection.in_atomic_block:
                self._connection.set_rollback(True)
            raise

    def _give_up(self, connection: Any, error: BaseException) -> None:
        """See that nothing commits, should somebody catch the error."""
        if connection.in_atomic_block:
            connection.set_rollback(True)
        elif sqlstate(error) is None and connection.connection and not connection.autocommit:
            connection.connection.close()  # the driver's: Django would open another unasked

    def _check_transaction(self) -> None:
        """Refuse what is in no transaction that could commit a message."""
        self.check()
        if self._connection.get_autocommit():
            raise self.unusable(
                "it is in autocommit mode. Use `with transaction.atomic():`, or leave `using` out:"
                " what is sent then is stored at once"
            )

    def check_vendor(self) -> None:
        """Refuse what is no Postgres."""
        if self._connection.vendor != "postgresql":
            raise self.unusable("it is not a Postgres database")

    def check(self) -> None:
        """Refuse what could not commit a message."""
        self.check_vendor()
        if self._connection.needs_rollback:
            raise self.unusable(FAILED)

    @property
    def _connection(self) -> Any:
        return connections[self._alias]

    def unusable(self, reason: str) -> UnusableTarget:
        """Return the error that says why it cannot take messages."""
        return UnusableTarget.about(target=f"Django database {self._alias!r}", reason=reason)


def target_for(target: object, schema: str) -> DjangoTarget:
    """Return the Target for the alias of a Django database. Raises UnusableTarget."""
    if not isinstance(target, str) or target not in connections:
        raise UnusableTarget.about(
            target=described(target),
            reason="Django has no database of this name, and it is no Connection",
        )
    return DjangoTarget(target, schema)
