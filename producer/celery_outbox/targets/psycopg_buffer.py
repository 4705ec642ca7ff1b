"""Buffers messages, and inserts them right before the next operation of a psycopg connection.

Every operation on a connection passes through its `wait()`, which takes a generator that talks to
the server. From the first send on, that `wait()` first runs another generator, the INSERT of what
is buffered, many in one statement. A SAVEPOINT, ROLLBACK TO, SELECT or COMMIT therefore finds each
row exactly where the code sent it, and sending needs no await on an AsyncConnection.

A connection has one buffer, for as long as it lives. Adding to it never waits, whichever thread,
task or greenlet does it, and nothing but an INSERT takes from it: what is in it when a block ends,
while the connection is busy elsewhere, goes out with the next operation, the COMMIT at the latest.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NoReturn, TypeVar, cast
from weakref import ref

from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor, Error, Pipeline
from psycopg.errors import PipelineAborted, QueryCanceled
from psycopg.pq import ConnStatus, PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Entry, Rows, commands, next_command, take_all
from celery_outbox.statements.insert import explain

T = TypeVar("T")
Operation = Generator[Any, Any, T]
AnyConnection = Connection[Any] | AsyncConnection[Any]

_CANCEL = b"DO $$ BEGIN RAISE query_canceled; END $$"
_KEY: Final = "_celery_outbox"


class Buffer:
    """The messages sent on one connection and not yet inserted; stands in for its `wait()`."""

    def __init__(self, connection: AnyConnection) -> None:
        self._connection = ref(connection)  # which holds this: a cycle would keep both
        self._beneath: Callable[..., Any] | None = vars(connection).get("wait")
        self._installed = False
        self._interrupted = False
        self._commit_is_next = False
        #: In the order of sending.
        self.entries: deque[Entry] = deque()
        #: The `async with` blocks that are open: they await what a send cannot.
        self.async_blocks: set[object] = set()

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
        together, self._commit_is_next = self._commit_is_next, False
        # With a timeout psycopg waits for notifications: the INSERT is not to be broken off.
        if self.entries and kwargs.get("timeout") is None and self._due(connection):
            insert = self._insert_with if together else self._insert_before
            operation = insert(connection, operation)
        wait = self._beneath or partial(type(connection).wait, connection)
        return wait(operation, *args, **kwargs)

    def awaits_commit(self) -> bool:
        """Take note that the next operation is the COMMIT, and tell whether it takes all along.

        Sent together, INSERT and COMMIT take one round trip.
        """
        connection: Any = self._connection()
        self._commit_is_next = (
            Pipeline.is_supported()
            and connection._pipeline is None
            and not connection.lock.locked()
            and all(entry.message.dedup_key is None for entry in self.entries)
        )
        return self._commit_is_next

    def _due(self, connection: AnyConnection) -> bool:
        match connection.pgconn.transaction_status:
            case TransactionStatus.INERROR:
                self.entries.clear()  # sent as the operation failed that they roll back with
                return False
            case TransactionStatus.ACTIVE:
                # In the middle of a COPY or stream nothing else can run; nor can a savepoint.
                return in_pipeline(connection)
            case TransactionStatus.UNKNOWN:
                return False
        return True

    def _insert_before(self, connection: Any, operation: Operation[T]) -> Operation[T]:
        taken = take_all(self.entries)
        entering_pipeline = connection._pipeline is not None and not in_pipeline(connection)
        failure = yield from self._insert_all(connection, taken)
        if failure is None:
            return (yield from operation)
        if not entering_pipeline:
            # psycopg's record of open transactions must stay right. Of a failed transaction
            # nothing can come: even COMMIT rolls it back.
            with suppress(Error):
                yield from operation
        raise failure

    def _insert_with(self, connection: Any, commit: Operation[T]) -> Operation[T]:
        """Send the INSERT and the COMMIT at once: the server skips this one if that one fails."""
        taken = take_all(self.entries)
        if not taken:  # another thread was quicker
            return (yield from commit)
        pipeline = connection._pipeline = Pipeline(connection, _no_lock=True)
        failure: Exception | None = None
        try:
            yield from pipeline._enter_gen()
            for schema, group in groupby(taken, attrgetter("schema")):
                yield from self._insert(connection, schema, list(group), _Plain)
            result = yield from commit
        except Exception as error:
            failure = error
        try:
            if connection.pgconn.status == ConnStatus.OK:
                yield from pipeline._exit_gen()
        except Exception as error:
            failure = failure or error
        finally:
            pipeline._exit(failure)
            connection._pipeline = None
        if failure is None:
            return result
        if isinstance(failure, PipelineAborted) and isinstance(failure.__context__, Error):
            failure = failure.__context__  # which aborted it
        if connection.pgconn.transaction_status != TransactionStatus.INERROR:
            raise failure  # it is the COMMIT's own, or the connection is lost
        yield from connection._exec_command(b"ROLLBACK")
        raise _judge(connection, failure, taken[0].schema, [each.message for each in taken])

    def _insert_all(self, connection: Any, taken: Sequence[Entry]) -> Operation[Exception | None]:
        """Insert into the outbox of each, and return what went wrong."""
        pipeline, kind = connection._pipeline, _CURSORS[isinstance(connection, Connection)]
        if not in_pipeline(connection):
            connection._pipeline = None  # about to be entered, perhaps, but not yet in force
        try:
            for schema, group in groupby(taken, attrgetter("schema")):
                entries = list(group)
                try:
                    yield from self._noticing_interrupts(
                        self._insert(connection, schema, entries, kind)
                    )
                except Exception as error:
                    return _judge(connection, error, schema, [each.message for each in entries])
        finally:
            connection._pipeline = pipeline
        return None

    def _noticing_interrupts(self, insert: Operation[None]) -> Operation[None]:
        """Note when psycopg goes on after a cancelled task or Ctrl-C: it sends nothing then."""
        self._interrupted, ready = False, None
        while True:
            try:
                wanted = insert.send(ready)
            except StopIteration:
                return
            ready = yield wanted
            self._interrupted = self._interrupted or ready is None

    def _insert(
        self, connection: Any, schema: str, entries: list[Entry], kind: Any
    ) -> Operation[None]:
        # As execute() does it, under the lock that the caller of wait() already holds.
        cursor: Any = kind(connection)
        cursor.outbox = schema, [each.message for each in entries]
        storing, rows = commands(schema, entries), None
        while command := next_command(storing, rows):
            text, parameters = command
            yield from cursor._execute_gen(text.encode(), parameters)
            rows = _rows(cursor.pgresult)
        if self._interrupted and not in_pipeline(connection):
            # The server was asked too late to cancel the insert. What comes next must not
            # begin: psycopg would wait 5 s for its end, and close the connection.
            yield from cursor._execute_gen(_CANCEL, ())


class _Explaining:
    """A cursor whose error in a pipeline, raised by a later statement, repeats no message's body.

    psycopg ends a pipeline in order only after errors of its own: the class stays the same.
    """

    outbox: tuple[str, list[Parcel]]

    def _raise_for_result(self, result: PGresult) -> NoReturn:
        try:
            super()._raise_for_result(result)  # type: ignore[misc]  # psycopg's, as mixed below
        except Error as error:
            connection = self._conn  # type: ignore[attr-defined]  # likewise
            explained = explain(error, *self.outbox)
            if explained is error or not in_pipeline(connection):
                raise
            failure = type(error)(str(explained))
        raise failure


class _Plain(Cursor[Any]):
    outbox: tuple[str, list[Parcel]]


class _Cursor(_Explaining, Cursor[Any]):
    pass


class _AsyncCursor(_Explaining, AsyncCursor[Any]):
    pass


_CURSORS: Final[dict[bool, Any]] = {True: _Cursor, False: _AsyncCursor}


def _judge(connection: Any, error: Exception, schema: str, messages: Sequence[Parcel]) -> Exception:
    """Return what to raise, and see that the transaction cannot commit."""
    if getattr(error, "sqlstate", None):
        # Aborted by the server. In a pipeline an earlier statement may be what failed. Of a
        # cancelled task psycopg expects its own error, or it would close the connection.
        if in_pipeline(connection) or isinstance(error, QueryCanceled):
            return error
        return explain(error, schema, messages)
    if not isinstance(error, PipelineAborted):
        connection.pgconn.finish()
    return error


def in_pipeline(connection: AnyConnection) -> bool:
    """Tell whether the server's answers come only later."""
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


def _rows(result: PGresult | None) -> Rows:
    """Return the only column of a result, which is text; an INSERT or a pipeline has none."""
    values = [result.get_value(row, 0) for row in range(result.ntuples)] if result else []
    return [(None if value is None else value.decode(),) for value in values]


def nothing() -> Operation[None]:
    """Return an operation that only gives the buffered messages their turn."""
    yield from ()
