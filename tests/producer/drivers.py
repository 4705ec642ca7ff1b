"""Every kind of transaction a task can join, behind one interface, for tests that try them all.

What is synchronous underneath runs at once; the interface is asynchronous so that one test does for
both. Only the names of the libraries' methods differ here, never what is expected of them.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import psycopg2
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from celery_outbox import Outbox


class Talk:
    """One open connection or session, with no transaction begun."""

    #: Whether blocks are `async with`.
    asynchronous = False

    def __init__(self, target: Any) -> None:
        self.target = target

    async def execute(self, query: str) -> Any:
        """Run a statement; the first column of its first row, if it has any."""
        return self.execute_now(query)

    def execute_now(self, query: str) -> Any:
        """The same where it is synchronous."""
        cursor = self.target.cursor()
        cursor.execute(query)
        return cursor.fetchone()[0] if cursor.description else None

    async def commit(self) -> None:
        """Commit."""
        self.target.commit()

    async def rollback(self) -> None:
        """Roll back."""
        self.target.rollback()

    async def close(self) -> None:
        """Close it, and what it came from."""
        self.target.close()

    def using(self, outbox: Outbox) -> AbstractAsyncContextManager[Any]:
        """`with outbox.using(...)`, or `async with`."""
        return _entered(outbox.using(self.target))

    def transaction(self, outbox: Outbox) -> AbstractAsyncContextManager[Any]:
        """`with outbox.transaction(...)`, or `async with`."""
        return _entered(outbox.transaction(self.target))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A savepoint, by the library's own means where it has any; an error rolls back to it."""
        await self.execute("SAVEPOINT test")
        try:
            yield
        except BaseException:
            await self.execute("ROLLBACK TO test")
            raise
        await self.execute("RELEASE test")


@asynccontextmanager
async def _entered(block: Any) -> AsyncIterator[Any]:
    with block as joined:
        yield joined


class Psycopg(Talk):
    """A psycopg Connection."""

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Psycopg's own, within a transaction that it began itself."""
        self.target.execute("SELECT 1")
        with self.target.transaction():
            yield


class AsyncPsycopg(Talk):
    """A psycopg AsyncConnection."""

    asynchronous = True

    async def execute(self, query: str) -> Any:
        cursor = await self.target.execute(query)
        row = await cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    async def commit(self) -> None:
        await self.target.commit()

    async def rollback(self) -> None:
        await self.target.rollback()

    async def close(self) -> None:
        await self.target.close()

    def using(self, outbox: Outbox) -> AbstractAsyncContextManager[Any]:
        return outbox.using(self.target)

    def transaction(self, outbox: Outbox) -> AbstractAsyncContextManager[Any]:
        return outbox.transaction(self.target)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self.target.execute("SELECT 1")
        async with self.target.transaction():
            yield


class SQLAlchemy(Talk):
    """A Session or Connection."""

    def execute_now(self, query: str) -> Any:
        result = self.target.execute(text(query))
        row = result.fetchone() if result.returns_rows else None
        return row[0] if row else None

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        with self.target.begin_nested():
            yield

    async def close(self) -> None:
        bind = self.target.engine if hasattr(self.target, "engine") else self.target.bind
        self.target.close()
        bind.dispose()


class AsyncSQLAlchemy(AsyncPsycopg):
    """An AsyncSession or AsyncConnection."""

    async def execute(self, query: str) -> Any:
        result = await self.target.execute(text(query))
        row = result.fetchone() if result.returns_rows else None
        return row[0] if row else None

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        async with self.target.begin_nested():
            yield

    async def close(self) -> None:
        bind = self.target.engine if hasattr(self.target, "engine") else self.target.bind
        await self.target.close()
        await bind.dispose()


class Django(Talk):
    """A Django alias, in a transaction of its own from the first statement on."""

    @property
    def _connection(self) -> Any:
        from django.db import connections  # type: ignore[import-untyped]  # ships no types

        connection = connections[self.target]
        if connection.get_autocommit():
            connection.set_autocommit(False)
        return connection

    def execute_now(self, query: str) -> Any:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0] if cursor.description else None

    def in_autocommit(self) -> None:
        """Leave it as Django does by default, until the next statement."""
        self._connection.set_autocommit(True)

    async def commit(self) -> None:
        self._connection.commit()

    async def rollback(self) -> None:
        self._connection.rollback()

    async def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True)
class Driver:
    """How to open one."""

    name: str
    open: Callable[[str], Any]
    #: Whether threads may use one at the same time.
    shared: bool = True

    def __str__(self) -> str:
        return self.name


def _dialect(url: str, driver: str) -> str:
    return url.replace("postgresql", f"postgresql+{driver}", 1)


def _of_engine(driver: str, kind: str) -> Driver:
    def open_it(url: str) -> Talk:
        engine = create_engine(_dialect(url, driver))
        return SQLAlchemy(Session(engine) if kind == "Session" else engine.connect())

    return Driver(f"{kind} on {driver}", open_it)


def _of_async_engine(driver: str, kind: str) -> Driver:
    async def open_it(url: str) -> Talk:
        engine = create_async_engine(_dialect(url, driver))
        if kind == "AsyncSession":
            return AsyncSQLAlchemy(AsyncSession(engine))
        return AsyncSQLAlchemy(await engine.connect())

    return Driver(f"{kind} on {driver}", open_it)


async def _open_async(url: str) -> Talk:
    return AsyncPsycopg(await psycopg.AsyncConnection.connect(url))


async def opened(driver: Driver, url: str) -> Talk:
    """Open one."""
    talk = driver.open(url)
    found: Talk = talk if isinstance(talk, Talk) else await talk
    return found


SYNCHRONOUS: Final = [
    Driver("psycopg", lambda url: Psycopg(psycopg.connect(url))),
    Driver("psycopg2", lambda url: Talk(psycopg2.connect(url))),
    _of_engine("psycopg", "Session"),
    _of_engine("psycopg2", "Session"),
    _of_engine("psycopg", "Connection"),
    _of_engine("psycopg2", "Connection"),
]
ASYNCHRONOUS: Final = [
    Driver("async psycopg", _open_async),
    _of_async_engine("psycopg", "AsyncSession"),
    _of_async_engine("asyncpg", "AsyncSession"),
    _of_async_engine("psycopg", "AsyncConnection"),
    _of_async_engine("asyncpg", "AsyncConnection"),
]
#: Its alias is the target, and the fixture `django_database` makes it.
DJANGO: Final = Driver("Django", lambda _: Django("default"), shared=False)
