"""An SQLAlchemy session as a target: as few round trips as with psycopg, where that is its driver.

The inbox' statements are on the session's own connection, beside what SQLAlchemy knows of them.
"""

from typing import TYPE_CHECKING, Any

from celery_inbox.errors import TransactionEnded
from celery_inbox.proxies import bare
from celery_inbox.target import Row, Statement, committed, ended_early

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, SessionTransaction


class SQLAlchemyTarget:
    """A Session in a block of `session.begin()`."""

    def __init__(self, handle: Any, session: "Session") -> None:
        self.handle = handle
        self._session = session  # the handle itself, or what a proxy hides
        self._block: SessionTransaction | None = None
        self._leaving = False

    def begin(self, first: Statement | None) -> Row | None:
        """Begin the session's transaction, or a savepoint where it is in one already."""
        session = self._session
        block = session.begin_nested() if session.in_transaction() else session.begin()
        self._block = block.__enter__()
        return None if first is None else self.execute(first)

    def alone(self, statement: Statement) -> Row | None:
        """Run it in a transaction of its own."""
        return committed(self, statement)

    def execute(self, statement: Statement) -> Row | None:
        """Run it on the session's connection; BEGIN, if it is due, travels with it."""
        driver = self._psycopg()
        if driver is None:
            return self._by_sqlalchemy(statement)
        from celery_inbox.psycopg_target import first_row, one_round_trip, run

        with one_round_trip(driver):
            cursor = run(driver, statement)
        return first_row(cursor)

    def commit(self, last: Statement | None) -> None:
        """Flush, then send the last statement and COMMIT together."""
        block = self._block
        if block is None or self.ended():
            raise TransactionEnded(ended_early())
        self._session.flush()
        driver = self._psycopg()
        if driver is None or last is None:
            if last is not None:
                self.execute(last)
            self._leave(block)
        else:
            from celery_inbox.psycopg_target import one_round_trip, run

            with one_round_trip(driver):
                run(driver, last)
                self._leave(block)
        self._block = None
        # Not within a block of connect()'s own, such as that of sessionmaker.begin().
        if self._session.in_transaction() and not self._session._trans_context_manager:
            self._session.commit()

    def roll_back(self, error: BaseException) -> None:
        """Leave the block as SQLAlchemy has it."""
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(type(error), error, error.__traceback__)

    def ended(self) -> bool:
        """True where the session's transaction is not the one that was begun."""
        session = self._session
        known = (session.get_transaction(), session.get_nested_transaction())
        return not self._leaving and self._block not in known

    def _leave(self, block: "SessionTransaction") -> None:
        """Commit; where that fails, it is not the body that has ended the transaction."""
        self._leaving = True
        block.__exit__(None, None, None)

    def _by_sqlalchemy(self, statement: Statement) -> Row | None:
        from sqlalchemy.exc import StatementError

        try:
            result = self._session.connection().exec_driver_sql(statement.sql, statement.parameters)
        except StatementError as error:
            error.hide_parameters = True  # its text would repeat the task's result
            raise
        row = result.fetchone() if result.returns_rows else None
        return None if row is None else tuple(row)

    def _psycopg(self) -> Any:
        """The psycopg connection below, if that is the driver and its commit is one command."""
        if self._session.twophase:
            return None
        driver = self._session.connection().connection.driver_connection
        connection = bare(driver, "psycopg.Connection")
        # In autocommit the claim is refused by its own commit, which no pipeline can report.
        return None if connection is None or connection.autocommit else connection
