"""Short transactions, each with the role of the person it is for, none without a deadline.

A few connections are kept for a short while, because making one takes longer than most pages do;
one that was lost meanwhile is replaced before anything is done on it. Everything is set within the
transaction: nothing of one person is left for the next, and a pooler in between does no harm.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from outbox_console.errors import Problem, SettingsError
from outbox_console.postgres import problems

T = TypeVar("T")

#: Seconds: people wait no longer for a page. A frozen server keeps no statement's own timeout.
_CONNECT: Final = 3
_DEADLINE: Final = 4.0
_ACTION_DEADLINE: Final = 30.0
#: Seconds that a connection is kept without use, and how many are: passwords and servers change.
_KEPT_FOR: Final = 30.0
_KEPT: Final = 4
#: Milliseconds. A search that is broken off is answered within two seconds all the same.
_STATEMENT: Final = 1500
_ACTION_STATEMENT: Final = 20_000
_LOCK: Final = 3000

#: All at once, for one round trip. The last decides what all that follows may do.
_BEGIN: Final = """
SELECT set_config('statement_timeout', %(statement)s, true),
       set_config('lock_timeout', %(lock)s, true),
       set_config('timezone', 'UTC', true),
       set_config('role', %(role)s, true)
"""


class Session:
    """One transaction."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], schema: str) -> None:
        self._connection, self._schema = connection, schema

    async def fetch(self, kind: type[T], statement: str, **parameters: object) -> list[T]:
        """One `kind` for each row, made with the columns as keywords."""
        async with self._connection.cursor(row_factory=class_row(kind)) as cursor:
            await cursor.execute(self._composed(statement), parameters)
            return await cursor.fetchall()

    async def value(self, statement: str, **parameters: object) -> Any:
        """The only column of the only row; None where there is no row."""
        cursor = await self._connection.execute(self._composed(statement), parameters)
        row = await cursor.fetchone()
        return row[0] if row else None

    async def become(self, role: str) -> None:
        """Go on with another role."""
        await self.value("SELECT set_config('role', %(role)s, true)", role=role)

    def _composed(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(outbox=sql.Identifier(self._schema))


class Database:
    """The outbox's database. Raises Problem, and nothing else, where something fails."""

    def __init__(self, url: Callable[[], str], schema: str) -> None:
        self._url, self._schema = url, schema
        self._running: set[asyncio.Task[Any]] = set()
        self._kept: list[tuple[psycopg.AsyncConnection[Any], asyncio.AbstractEventLoop, float]] = []

    @property
    def schema(self) -> str:
        """Where the tables are."""
        return self._schema

    async def read(self, role: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """What `work` returns, in a transaction that can change nothing."""
        return await self._within(_DEADLINE, self._transaction(role, work, True), problems.FROZEN)

    async def change(self, role: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """What `work` returns, committed. After a Problem nothing was done, unless it says so."""
        transaction = self._transaction(role, work, False)
        return await self._within(_ACTION_DEADLINE, transaction, problems.UNKNOWN_OUTCOME)

    async def _within(self, seconds: float, work: Awaitable[T], late: tuple[str, str]) -> T:
        # The task is left to itself when it is late: to cancel it, psycopg asks the server, which
        # may be what does not answer.
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            task.cancel()
            raise Problem(503, *late)
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: nobody else may

    async def _transaction(
        self, role: str, work: Callable[[Session], Awaitable[T]], read_only: bool
    ) -> T:
        try:
            connection = await self._begun(role, read_only)
            done = False
            try:
                result = await work(Session(connection, self._schema))
                await connection.commit()
                done = True
                return result
            finally:
                if done and len(self._kept) < _KEPT:
                    loop = asyncio.get_running_loop()
                    self._kept.append((connection, loop, loop.time()))
                else:
                    await connection.close()
        except psycopg.Error as error:
            raise problems.refused(error, role) from error

    def close(self) -> None:
        """End the connections that are kept."""
        while self._kept:
            self._kept.pop()[0].pgconn.finish()

    async def _begun(self, role: str, read_only: bool) -> psycopg.AsyncConnection[Any]:
        kept = self._take()
        if kept is not None:
            with suppress(psycopg.OperationalError):  # lost meanwhile, and nothing was done on it
                return await _begin(kept, role, read_only)
        return await _begin(await self._connect(), role, read_only)

    def _take(self) -> psycopg.AsyncConnection[Any] | None:
        loop = asyncio.get_running_loop()
        while self._kept:
            connection, its_loop, since = self._kept.pop()
            if its_loop is loop and loop.time() - since < _KEPT_FOR and not connection.closed:
                return connection
            connection.pgconn.finish()
        return None

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        try:
            return await psycopg.AsyncConnection.connect(
                self._url(),
                connect_timeout=_CONNECT,
                application_name="outbox-console",
                prepare_threshold=None,  # poolers
            )
        except psycopg.OperationalError as error:
            raise problems.unreachable(error) from error
        except SettingsError as error:
            raise Problem(503, "A setting is wrong", str(error)) from error


async def _begin(
    connection: psycopg.AsyncConnection[Any], role: str, read_only: bool
) -> psycopg.AsyncConnection[Any]:
    """A transaction on it, with its limits and its role; on an error it is closed."""
    try:
        await connection.set_read_only(read_only)
        statement = _STATEMENT if read_only else _ACTION_STATEMENT
        limits = {"statement": str(statement), "lock": str(_LOCK), "role": role}
        await connection.execute(_BEGIN, limits)
    except BaseException:
        await connection.close()
        raise
    return connection
