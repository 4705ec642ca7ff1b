"""Buffers messages, and inserts them right before the next operation of a psycopg connection.

Every operation on a connection passes through its `wait()`, which takes a generator that talks to
the server. From the first send on, that `wait()` first runs another generator, the INSERT of what
is buffered, many in one statement. A SAVEPOINT, ROLLBACK TO, SELECT or COMMIT therefore finds each
row exactly where the code sent it, and sending needs no await on an AsyncConnection.

A connection has one buffer, for as long as it lives. Adding to it never waits, whichever thread,
task or greenlet does it, and nothing but an INSERT takes from it: what is in it when a block ends,
while the connection is busy elsewhere, goes out with the next operation, the COMMIT at the latest.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet, ref

from psycopg import AsyncTransaction, Connection, Transaction
from psycopg.pq import TransactionStatus

from celery_outbox.errors import UnusableTarget
from celery_outbox.statements.commands import Entries
from celery_outbox.targets.psycopg_insertion import (
    AnyConnection,
    Insertion,
    Operation,
    in_pipeline,
)
from celery_outbox.targets.target import FAILED

T = TypeVar("T")

_KEY: Final = "_celery_outbox"


class Buffer:
    """The messages sent on one connection and not yet inserted; stands in for its `wait()`."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = ref(connection)  # which holds this: a cycle would keep both
        self._beneath: Callable[..., Any] | None = vars(connection).get("wait")
        self._installed = False
        #: What ends the transaction of `expect_commit`, once that has come to its end.
        self._commit: ref[Operation[Any]] | None = None
        self.entries = Entries()
        #: The `async with` blocks that are open: they await what a send cannot. One whose task was
        #: abandoned never ends, and awaits nothing.
        self.async_blocks: WeakSet[object] = WeakSet()

    @classmethod
    def of(cls, connection: AnyConnection) -> "Buffer":
        """Return the buffer of `connection`, with its `wait()` replaced before anything is added.

        Threads that come here at one moment get the same one, and either does what is to be done.
        """
        own = vars(connection)
        found = cast("Buffer | None", own.get(_KEY))
        if found is None:
            found = cast("Buffer", own.setdefault(_KEY, cls(connection)))
        if not found._installed:
            own["wait"] = found.wait
            found._installed = True
        return found

    def wait(self, operation: Operation[T], *args: Any, **kwargs: Any) -> Any:
        """Do what the connection's `wait()` does, with the messages inserted first."""
        connection: Any = self._connection()
        wait = self._beneath or partial(type(connection).wait, connection)
        if commits := self._commit is not None and self._commit() is operation:
            self._commit = None
        if connection.pgconn.transaction_status == TransactionStatus.INERROR:
            self.entries.clear()  # sent as the operation failed that they roll back with
            ends = _in_vain(connection, operation) if commits else operation
            return wait(ends, *args, **kwargs)
        # With a timeout psycopg waits for notifications: the INSERT is not to be broken off.
        if not self.entries or kwargs.get("timeout") is not None or not self._due(connection):
            return wait(operation, *args, **kwargs)
        insertion = Insertion(connection, self.entries)
        both = (insertion.together_with if commits else insertion.before)(operation)
        if not isinstance(connection, Connection):
            return _awaited(wait(both, *args, **kwargs), insertion, both)
        try:
            return wait(both, *args, **kwargs)
        except BaseException:
            insertion.break_off(both)
            raise

    def expect_commit(self, transaction: Transaction | AsyncTransaction) -> None:
        """Have the COMMIT that ends `transaction` take along what is buffered by then.

        Other operations may come before it, of other threads too. None is taken for it.
        """
        this = ref(transaction)  # which holds what is made here: a cycle would keep both

        def exit_gen(kind: Any, error: BaseException | None, trace: Any) -> Operation[bool]:
            ends: Any = this()
            operation: Operation[bool] = type(ends)._exit_gen(ends, kind, error, trace)
            if error is None:
                self._commit = ref(operation)
            return operation

        vars(transaction)["_exit_gen"] = exit_gen

    def _due(self, connection: AnyConnection) -> bool:
        match connection.pgconn.transaction_status:
            case TransactionStatus.ACTIVE:
                # In the middle of a COPY or stream nothing else can run; nor can a savepoint.
                return in_pipeline(connection)
            case TransactionStatus.UNKNOWN:
                return False
        return True


async def _awaited(waiting: Awaitable[T], insertion: Insertion, both: Operation[T]) -> T:
    try:
        return await waiting
    except BaseException:
        insertion.break_off(both)
        raise


def _in_vain(connection: AnyConnection, commit: Operation[T]) -> Operation[T]:
    """Roll back, as a COMMIT does then, and say so: it would pass for one."""
    yield from commit
    raise UnusableTarget.about(target=repr(connection), reason=FAILED)


def nothing() -> Operation[None]:
    """Return an operation that only gives the buffered messages their turn."""
    yield from ()
