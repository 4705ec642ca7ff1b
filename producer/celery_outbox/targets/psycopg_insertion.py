"""The INSERT of messages as part of an operation of a psycopg connection: all of it, or an error.

It runs right before the operation or, where that is the COMMIT, together with it. Whatever ends it
otherwise than by the server's answer, be it an error on this side, a Ctrl-C, a timeout of gevent or
a soft time limit, closes the connection: the server would still commit, without the messages.
"""

from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NoReturn, TypeVar

from psycopg import (
    AsyncConnection,
    AsyncCursor,
    Connection,
    Cursor,
    Error,
    OperationalError,
    Pipeline,
)
from psycopg.errors import PipelineAborted, QueryCanceled
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from celery_outbox.message import Parcel
from celery_outbox.statements.commands import Entries, Entry, Rows, commands, next_command, take_all
from celery_outbox.statements.insert import explain

T = TypeVar("T")
Operation = Generator[Any, Any, T]
AnyConnection = Connection[Any] | AsyncConnection[Any]

_CANCEL: Final = b"DO $$ BEGIN RAISE query_canceled; END $$"


class Insertion:
    """One turn of a buffer: what is in it then, and the operation it goes out with."""

    def __init__(self, connection: Any, entries: Entries) -> None:
        self._connection = connection
        self._entries = entries
        #: Whether something was taken of which nobody knows yet that it is stored, or is not.
        self._unsettled = False
        self._interrupted = False
        self._commit_queued = False

    def before(self, operation: Operation[T]) -> Operation[T]:
        """Insert, then do the operation."""
        return (yield from self._before(self._take(), operation))

    def _before(self, taken: Sequence[Entry], operation: Operation[T]) -> Operation[T]:
        connection = self._connection
        entering_pipeline = connection._pipeline is not None and not in_pipeline(connection)
        failure = yield from self._insert_all(taken)
        self._unsettled = False
        if failure is None:
            return (yield from operation)
        if not entering_pipeline:
            # psycopg's record of open transactions must stay right. Of a failed transaction
            # nothing can come: even COMMIT rolls it back.
            with suppress(Error):
                yield from operation
        raise failure

    def together_with(self, commit: Operation[T]) -> Operation[T]:
        """Send the INSERT and the COMMIT at once: the server skips this one if that one fails.

        Sent together, they take one round trip. One after the other where that cannot be: on an
        AsyncConnection, in pipeline mode, with a `dedup_key`, of which the answer must be known.
        """
        connection, taken = self._connection, self._take()
        if not taken or not self._can_be_one(taken):
            return (yield from self._before(taken, commit))
        pipeline = connection._pipeline = _AtOnce(connection)
        try:
            yield from pipeline._enter_gen()
            both = self._pipelined(pipeline, taken, commit)
            result, failure = yield from self._until_interrupted(pipeline, both)
            pipeline._exit(failure)
        except BaseException:
            connection.pgconn.finish()  # or the COMMIT would go out with the next operation
            raise
        finally:
            connection._pipeline = None
            self._unsettled = False
        if failure is None:
            return result
        if isinstance(failure, PipelineAborted) and isinstance(failure.__context__, Error):
            failure = failure.__context__  # which aborted it
        match connection.pgconn.transaction_status:
            case TransactionStatus.INERROR:
                yield from connection._exec_command(b"ROLLBACK")
                messages = [each.message for each in taken]
                raise _judge(connection, failure, taken[0].schema, messages)
            case TransactionStatus.IDLE:
                raise failure  # it is the COMMIT's own
        connection.pgconn.finish()
        if isinstance(failure, OperationalError):
            raise failure
        # Of a connection that is lost libpq may make a result, like any other.
        raise OperationalError(str(failure)) from failure

    def break_off(self, operation: Operation[Any]) -> None:
        """Close the connection if nobody goes on with `operation` and its INSERT is unsettled.

        What broke it off was raised where psycopg waits for the server.
        """
        if self._unsettled:
            self._connection.pgconn.finish()
            with suppress(Exception):  # of psycopg, which finds it closed
                operation.close()

    def _can_be_one(self, taken: Sequence[Entry]) -> bool:
        return (
            isinstance(self._connection, Connection)
            and Pipeline.is_supported()
            and self._connection._pipeline is None
            and all(entry.message.dedup_key is None for entry in taken)
        )

    def _take(self) -> list[Entry]:
        self._unsettled = True
        return take_all(self._entries)

    def _pipelined(
        self, pipeline: "_AtOnce", taken: Sequence[Entry], commit: Operation[T]
    ) -> Operation[tuple[T, Error | None]]:
        """Send all, and return what the COMMIT returned and what the server said to it."""
        failure: Error | None = None
        try:
            for schema, group in groupby(taken, attrgetter("schema")):
                yield from self._insert(schema, list(group), _Plain)
        except Error as error:
            if self._connection.closed or not _is_of_server(error):
                raise
            failure = error
        # Although it is skipped after a failure: psycopg's record of transactions must stay right.
        result = yield from commit
        self._commit_queued = True
        try:
            yield from pipeline.exchange()
        except Error as error:
            failure = failure or error
        return result, failure

    def _until_interrupted(self, pipeline: Pipeline, both: Operation[T]) -> Operation[T]:
        """Go on where psycopg does so after a Ctrl-C, unless the COMMIT has yet to be sent."""
        ready: int | None = None
        try:
            while True:
                ready = yield both.send(ready)
                if ready is None:
                    if pipeline.command_queue or not self._commit_queued:
                        break
                    ready = 0  # None is too much for a pipeline of psycopg 3.2
        except StopIteration as end:
            result: T = end.value
            return result
        self._connection.pgconn.finish()
        both.close()
        raise QueryCanceled  # psycopg expects this, and goes on with the Ctrl-C

    def _insert_all(self, taken: Sequence[Entry]) -> Operation[Exception | None]:
        """Insert into the outbox of each, and return what went wrong."""
        connection = self._connection
        pipeline, kind = connection._pipeline, _CURSORS[isinstance(connection, Connection)]
        if not in_pipeline(connection):
            connection._pipeline = None  # about to be entered, perhaps, but not yet in force
        try:
            for schema, group in groupby(taken, attrgetter("schema")):
                entries = list(group)
                try:
                    yield from self._noticing_interrupts(self._insert(schema, entries, kind))
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

    def _insert(self, schema: str, entries: list[Entry], kind: Any) -> Operation[None]:
        # As execute() does it, under the lock that the caller of wait() already holds.
        cursor: Any = kind(self._connection)
        cursor.outbox = schema, [each.message for each in entries]
        storing, rows = commands(schema, entries), None
        while command := next_command(storing, rows):
            text, parameters = command
            yield from cursor._execute_gen(text.encode(), parameters)
            rows = _rows(cursor.pgresult)
        if self._interrupted and not in_pipeline(self._connection):
            # The server was asked too late to cancel the insert. What comes next must not
            # begin: psycopg would wait 5 s for its end, and close the connection.
            yield from cursor._execute_gen(_CANCEL, ())


class _AtOnce(Pipeline):
    """Sends nothing before all of it is there: one write, and one answer to wait for.

    psycopg's own sends each statement when it comes, and asks the server for its answers once
    more after the Sync, which they come with anyway: a twelfth of what a lone send takes.
    """

    def _communicate_gen(self) -> Operation[None]:
        yield from ()

    def exchange(self) -> Operation[None]:
        """Send what is queued, and a Sync; process every answer, and raise the first error."""
        try:
            self._enqueue_sync()
            yield from super()._communicate_gen()
        finally:
            yield from self._fetch_gen(flush=False)


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
    if _is_of_server(error):
        # Aborted by the server. In a pipeline an earlier statement may be what failed. Of a
        # cancelled task psycopg expects its own error, or it would close the connection.
        if in_pipeline(connection) or isinstance(error, QueryCanceled):
            return error
        return explain(error, schema, messages)
    connection.pgconn.finish()
    return error


def _is_of_server(error: Exception) -> bool:
    """Tell whether the server knows of the failure, and has aborted the transaction."""
    return getattr(error, "sqlstate", None) is not None or isinstance(error, PipelineAborted)


def in_pipeline(connection: AnyConnection) -> bool:
    """Tell whether the server's answers come only later."""
    return connection.pgconn.pipeline_status != PipelineStatus.OFF


def _rows(result: PGresult | None) -> Rows:
    """Return the only column of a result, which is text; an INSERT or a pipeline has none."""
    values = [result.get_value(row, 0) for row in range(result.ntuples)] if result else []
    return [(None if value is None else value.decode(),) for value in values]
