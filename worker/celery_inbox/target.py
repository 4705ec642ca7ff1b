"""One face for the transactions a task can run in: psycopg, SQLAlchemy, Django.

Whatever is given, `commit` ends the transaction with its last statement or not at all. Where a
transaction has begun before, by a query say, the task gets a savepoint in it, and that transaction
is committed too, unless a block of its own is around it, as in `sessionmaker.begin`.
"""

from dataclasses import dataclass
from typing import Any, LiteralString, Protocol

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with what it is about."""

    sql: LiteralString
    parameters: Row = ()


class Target(Protocol):
    """A database session of one attempt's own."""

    @property
    def handle(self) -> Any:
        """What the task body gets: the connection, session or alias as it was given."""

    def begin(self, first: Statement | None) -> Row | None:
        """Begin a transaction with this statement, and return its first row, if any."""

    def alone(self, statement: Statement) -> Row | None:
        """Run one statement in a transaction of its own and return its first row, if any."""

    def execute(self, statement: Statement) -> Row | None:
        """Run one statement in that transaction and return its first row, if any."""

    def commit(self, last: Statement | None) -> None:
        """Commit with this as the last statement; raise, and commit nothing, where it fails.

        Raises TransactionEnded where the transaction that was begun is no longer there.
        """

    def roll_back(self, error: BaseException) -> None:
        """End the transaction, of which this is the error, without an effect."""

    def ended(self) -> bool:
        """Whether the body has ended the transaction or closed the connection, as seen from here.

        What cannot be seen from here, such as a COMMIT in SQL, the database notices.
        """


def committed(target: Target, statement: Statement) -> Row | None:
    """Run one statement in a transaction of its own, step by step."""
    try:
        row = target.begin(statement)
        target.commit(None)
    except BaseException as error:
        target.roll_back(error)
        raise
    return row


def ended_early() -> str:
    """What to say of a transaction that is no longer there."""
    return (
        "the task ended its transaction itself (commit, rollback, close or autocommit), so nothing "
        "of it that could be undone was kept: leave the transaction to @idempotent"
    )
