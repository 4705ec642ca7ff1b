"""A Django database as a target: its statements run in an `atomic()` block of the alias."""

from typing import Any

from celery_inbox.errors import TransactionEnded
from celery_inbox.proxies import bare
from celery_inbox.target import Row, Statement, committed, ended_early


class DjangoTarget:
    """The connection that this thread has to a configured database."""

    def __init__(self, alias: str) -> None:
        self.handle = alias
        self._block: Any = None

    def begin(self, first: Statement | None) -> Row | None:
        """Enter `atomic()`; BEGIN travels with the first statement."""
        from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types

        connection = self._connection()
        if not connection.in_atomic_block:  # as a test is, around all that it does
            connection.close_if_unusable_or_obsolete()  # lost in an earlier attempt
        block = transaction.atomic(using=self.handle)
        block.__enter__()
        self._block = block
        return None if first is None else self.execute(first)

    def alone(self, statement: Statement) -> Row | None:
        """Run it in a transaction of its own."""
        return committed(self, statement)

    def execute(self, statement: Statement) -> Row | None:
        """Run it as Django would: its errors are Django's, and a broken block refuses it."""
        connection = self._connection()
        connection.validate_no_broken_transaction()
        driver = bare(connection.connection, "psycopg.Connection")
        if driver is None:
            with connection.cursor() as cursor:
                cursor.execute(statement.sql, statement.parameters)
                row = cursor.fetchone() if cursor.description else None
                return None if row is None else tuple(row)
        from celery_inbox.psycopg_target import first_row, one_round_trip, run

        with connection.wrap_database_errors:
            with one_round_trip(driver):
                cursor = run(driver, statement)
            return first_row(cursor)

    def commit(self, last: Statement | None) -> None:
        """Run the last statement, then leave the block, whose on_commit hooks run by themselves."""
        connection = self._connection()
        if self.ended():
            raise TransactionEnded(ended_early())
        connection.validate_no_broken_transaction()  # atomic() would roll back without a word
        if last is not None:
            self.execute(last)
        block, self._block = self._block, None
        block.__exit__(None, None, None)
        if not (connection.in_atomic_block or connection.get_autocommit()):
            connection.commit()  # with AUTOCOMMIT switched off, atomic() does not

    def roll_back(self, error: BaseException) -> None:
        """Leave the block as Django has it."""
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(type(error), error, error.__traceback__)

    def ended(self) -> bool:
        """True where the body closed the connection."""
        return bool(self._connection().closed_in_transaction)

    def _connection(self) -> Any:
        from django.db import connections

        return connections[self.handle]
