"""psycopg2 connections as targets: each message is inserted as it is sent, exact by itself."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from typing import Any
from uuid import uuid4

import psycopg2.extensions
from psycopg2.extensions import (
    STATUS_READY,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INERROR,
)

from celery_outbox.errors import UnusableTarget
from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Entry, Outcome, Rows, commands, execute_all
from celery_outbox.statements.insert import Style, explain, sqlstate, statement
from celery_outbox.targets.immediate import Immediate
from celery_outbox.targets.target import CLOSED, FAILED, SYNCHRONOUS, described


class Psycopg2Target(Immediate):
    """The transaction of a psycopg2 connection. See `Target`."""

    def __init__(self, connection: psycopg2.extensions.connection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def join(self, *, blocking: bool) -> None:  # noqa: ARG002 - it blocks either way
        """See that there is a transaction to join."""
        if self._connection.closed:
            raise self._unusable(CLOSED)
        if self._connection.async_:
            raise self._unusable("it is in psycopg2's asynchronous mode, which has no transactions")
        if self._connection.autocommit and not self.in_transaction():
            raise self._unusable(
                "it is in autocommit mode with no transaction in progress. Use"
                " app.outbox.transaction(connection)"
            )
        self._check_not_failed()

    def _check_not_failed(self) -> None:
        if self._connection.info.transaction_status == TRANSACTION_STATUS_INERROR:
            raise self._unusable(FAILED)

    def put(self, message: Parcel) -> Outcome:
        """Insert the message."""
        self.join(blocking=True)
        entry = Entry.of(self._schema, message)
        execute_all(
            commands(self._schema, [entry], Style.FORMAT),
            lambda text, parameters: self._execute(text, parameters, [message]),
        )
        return entry.outcome

    def begin(self) -> AbstractContextManager[object]:
        """Return a transaction, or a savepoint where one is in progress."""
        return self._savepoint() if self.in_transaction() else self._transaction()

    def abegin(self) -> AbstractAsyncContextManager[object]:
        """Refuse: there is nothing to await."""
        raise self._unusable(SYNCHRONOUS)

    def in_transaction(self) -> bool:
        """Tell whether BEGIN was sent: by psycopg2, or in autocommit mode by anybody."""
        if self._connection.autocommit and not self._connection.closed:
            return self._connection.info.transaction_status != TRANSACTION_STATUS_IDLE
        return self._connection.status != STATUS_READY

    def is_given_up(self) -> bool:
        """Tell that it is not: psycopg2 cannot tell a rollback from a transaction not begun yet."""
        return False

    def fetch(self, query: str, *parameters: object) -> Rows:
        """Execute and fetch all."""
        self.join(blocking=True)
        return self._execute(statement(query, self._schema, Style.FORMAT), parameters, ())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # In autocommit mode psycopg2's own commit() and rollback() do nothing.
        begun_here = self._connection.autocommit
        if begun_here:
            self._command("BEGIN")
        try:
            yield
            self._check_not_failed()  # or the COMMIT would roll back without a word
        except BaseException:
            with self._not_instead():
                self._command("ROLLBACK") if begun_here else self._connection.rollback()
            raise
        self._command("COMMIT") if begun_here else self._connection.commit()

    @contextmanager
    def _savepoint(self) -> Iterator[None]:
        name = f"outbox_{uuid4().hex}"
        self._command(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            with self._not_instead():
                self._command(f"ROLLBACK TO {name}; RELEASE {name}")
            raise
        self._command(f"RELEASE {name}")

    @contextmanager
    def _not_instead(self) -> Iterator[None]:
        """Keep an error of rolling back from hiding why: where that fails, nothing can commit."""
        try:
            yield
        except psycopg2.Error as error:
            self._give_up(error)

    def _command(self, text: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(text)

    def _execute(self, text: str, parameters: Any, messages: Sequence[Parcel]) -> Rows:
        # Not the connection's own cursor class, which may return dictionaries.
        plain = psycopg2.extensions.cursor
        try:
            with self._connection.cursor(cursor_factory=plain) as cursor:
                cursor.execute(text, parameters)
                return cursor.fetchall() if cursor.description else []
        except Exception as error:
            failure = explain(error, self._schema, messages)
            self._give_up(error)
        except BaseException as interrupt:
            self._give_up(interrupt)
            raise
        raise failure

    def _give_up(self, error: BaseException) -> None:
        """Close the connection where the server does not know of the error, and would commit."""
        if sqlstate(error) is None:
            self._connection.close()

    def _unusable(self, reason: str) -> UnusableTarget:
        return UnusableTarget.about(target=repr(self._connection), reason=reason)


def target_for(target: Any, schema: str) -> Psycopg2Target:
    """Return the Target for a psycopg2 connection. Raises UnusableTarget for anything else."""
    if not isinstance(target, psycopg2.extensions.connection):
        raise UnusableTarget.about(
            target=described(target),
            reason="give the psycopg2 connection itself, not something of it",
        )
    return Psycopg2Target(target, schema)
