"""One face for the transactions a task can run in: psycopg, SQLAlchemy, Django.

Whatever is given, a transaction commits when its block ends and rolls back when it raises, and
the task body cannot commit half of it: all three libraries refuse a commit inside the block.
Where `connect` hands over a transaction that has begun, by a query say, that one is committed too,
unless a block of its own is around it, as in `sessionmaker.begin`, which commits at its end.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, Protocol

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy.orm import Session

Row = tuple[Any, ...]


class Target(Protocol):
    """A database session of the task's own."""

    @property
    def handle(self) -> Any:
        """What the task body gets: the connection, session or alias `connect` returned."""

    def transaction(self) -> AbstractContextManager[Any]:
        """Commit at the end of the block, roll back when it raises."""

    def execute(self, sql: LiteralString, parameters: Row) -> Row | None:
        """Run one statement in that transaction and return its first row, if any."""


@contextmanager
def opened(connect: Callable[[], Any]) -> Iterator[Target]:
    """Call `connect` and close what it returned when the block ends."""
    given = connect()
    if isinstance(given, str):
        yield _Django(given)
    elif isinstance(given, AbstractContextManager):
        with given as handle:
            yield _adapt(handle)
    else:
        raise _unusable(given)


def _adapt(handle: object) -> Target:
    if _is_a(handle, "psycopg", "Connection"):
        return _Psycopg(handle)  # type: ignore[arg-type]  # _is_a has checked, without the import
    if _is_a(handle, "sqlalchemy.orm", "Session"):
        return _SQLAlchemy(handle)  # type: ignore[arg-type]  # the same
    raise _unusable(handle)


def _is_a(value: object, module: str, name: str) -> bool:
    """isinstance, for a library that is imported only where an application uses it."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _unusable(given: object) -> TypeError:
    return TypeError(
        f"@idempotent(connect): connect() returned {type(given).__qualname__}; it must return a "
        "psycopg.Connection, an SQLAlchemy Session, a context manager that yields one of them "
        "(a pool's connection(), say) or the name of a Django database"
    )


@dataclass(frozen=True, slots=True)
class _Psycopg:
    handle: "psycopg.Connection[Any]"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        import psycopg
        from psycopg.pq import TransactionStatus

        with self.handle.transaction():  # a savepoint, if connect() began one
            yield
        if self.handle.info.transaction_status is TransactionStatus.INTRANS:
            try:
                self.handle.commit()
            except psycopg.ProgrammingError as error:
                if error.sqlstate:
                    raise
                # Refused by psycopg: within a block of connect()'s own.

    def execute(self, sql: LiteralString, parameters: Row) -> Row | None:
        import psycopg
        from psycopg.rows import tuple_row

        # Not handle.execute(): its cursor and row factories are the application's choice.
        with psycopg.Cursor(self.handle, row_factory=tuple_row) as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchone() if cursor.description else None


@dataclass(frozen=True, slots=True)
class _SQLAlchemy:
    handle: "Session"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        session = self.handle
        with session.begin_nested() if session.in_transaction() else session.begin():
            yield
        # Not within a block of connect()'s own, such as that of sessionmaker.begin().
        if session.in_transaction() and not session._trans_context_manager:
            session.commit()

    def execute(self, sql: LiteralString, parameters: Row) -> Row | None:
        result = self.handle.connection().exec_driver_sql(sql, parameters)
        first = result.fetchone() if result.returns_rows else None
        return None if first is None else tuple(first)


@dataclass(frozen=True, slots=True)
class _Django:
    handle: str

    @contextmanager
    def transaction(self) -> Iterator[None]:
        from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types

        connection = self._connection()
        connection.close_if_unusable_or_obsolete()  # lost in an earlier attempt
        with transaction.atomic(using=self.handle):
            yield
        if not (connection.in_atomic_block or connection.get_autocommit()):
            connection.commit()  # with AUTOCOMMIT switched off, atomic() does not

    def execute(self, sql: LiteralString, parameters: Row) -> Row | None:
        with self._connection().cursor() as cursor:
            cursor.execute(sql, parameters)
            first = cursor.fetchone() if cursor.description else None
            return None if first is None else tuple(first)

    def _connection(self) -> Any:
        from django.db import connections

        return connections[self.handle]
