"""On asyncio SQLAlchemy's sessions and connections are as exact, and sending awaits nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from celery_outbox import OutboxNotReady, RowRefused, UnusableTarget
from tests.producer.conftest import Shop, Stored

COUNT = text("SELECT count(*) FROM outbox.message")
KINDS: dict[str, Callable[[AsyncEngine], Any]] = {
    "AsyncSession": AsyncSession,
    "async_scoped_session": lambda engine: async_scoped_session(
        async_sessionmaker(engine), asyncio.current_task
    ),
    "AsyncConnection": lambda engine: engine.connect(),
}
Run = Callable[[Callable[[Any], Awaitable[None]]], None]


@pytest.fixture(params=["psycopg", "asyncpg"])
def engine(request: pytest.FixtureRequest, database: str) -> AsyncEngine:
    """An engine on the test's database, with either driver, to be used in one event loop."""
    return create_async_engine(database.replace("postgresql", f"postgresql+{request.param}", 1))


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest, engine: AsyncEngine) -> Run:
    """Run a coroutine with a session or connection that has done nothing yet."""

    def run(body: Callable[[Any], Awaitable[None]]) -> None:
        async def main() -> None:
            target = KINDS[request.param](engine)
            if request.param == "AsyncConnection":
                await target.start()
            try:
                await body(target)
            finally:
                await target.close()
                await engine.dispose()

        asyncio.run(main())

    return run


def test_commits_and_rolls_back_with_the_data(shop: Shop, run: Run, stored: Stored) -> None:
    """A commit inside the block ends one transaction; what follows belongs to the next."""

    async def body(target: Any) -> None:
        async with shop.app.outbox.using(target) as joined:
            assert joined is target
            shop.add.delay(1, 0)
            await target.commit()
            assert stored.args() == [1]
            shop.add.delay(2, 0)
            await target.rollback()
            shop.add.delay(3, 0)
            await target.execute(text("SELECT 1"))
            await target.rollback()
            shop.add.delay(4, 0)
        assert stored.args() == [1]
        await target.commit()

    run(body)
    assert stored.args() == [1, 4]


@pytest.mark.parametrize("busy", [False, True], ids=["no SQL between", "SQL between"])
def test_savepoints(shop: Shop, run: Run, stored: Stored, busy: bool) -> None:
    """A savepoint that rolls back takes its own rows with it, and only those."""

    async def body(target: Any) -> None:
        async def work() -> None:
            if busy:
                await target.execute(text("SELECT 1"))

        async with shop.app.outbox.using(target):
            shop.add.delay(1, 0)
            async with target.begin_nested():
                await work()
                shop.add.delay(2, 0)
                with suppress(KeyError):
                    async with target.begin_nested():
                        shop.add.delay(3, 0)
                        await work()
                        async with target.begin_nested():
                            shop.add.delay(4, 0)
                        raise KeyError
                shop.add.delay(5, 0)
            savepoint = await target.begin_nested()
            shop.add.delay(6, 0)
            await savepoint.rollback()
            await target.execute(text("SAVEPOINT a"))
            shop.add.delay(7, 0)
            await target.execute(text("ROLLBACK TO a"))
            shop.add.delay(8, 0)
            await target.commit()

    run(body)
    assert stored.args() == [1, 2, 5, 8]


def test_in_the_middle_of_a_transaction(shop: Shop, run: Run, stored: Stored) -> None:
    """A block may begin within savepoints, even those SQLAlchemy has not sent yet."""

    async def body(target: Any) -> None:
        async with target.begin_nested():
            with suppress(KeyError):
                async with target.begin_nested():
                    async with shop.app.outbox.using(target):
                        shop.add.delay(1, 0)
                        await target.execute(text("SELECT 1"))
                    raise KeyError
            async with shop.app.outbox.using(target):
                shop.add.delay(2, 0)
        await target.commit()

    run(body)
    assert stored.args() == [2]


def test_per_call_without_a_block(shop: Shop, run: Run, stored: Stored) -> None:
    """`outbox=` alone is enough: the row is in the transaction with whatever it does next."""

    async def body(target: Any) -> None:
        shop.add.apply_async((1, 0), outbox=target)
        assert (await target.execute(COUNT)).scalar() == 1
        await target.commit()
        shop.add.apply_async((2, 0), outbox=target)
        await target.commit()
        shop.add.apply_async((3, 0), outbox=target)
        await target.rollback()
        await target.commit()

    run(body)
    assert stored.args() == [1, 2]


def test_child_tasks(shop: Shop, run: Run, stored: Stored) -> None:
    """Threads and child tasks share the block while it is open."""

    async def body(target: Any) -> None:
        async with shop.app.outbox.using(target):
            await asyncio.gather(*(asyncio.to_thread(shop.add.delay, n, 0) for n in range(20)))
            await target.commit()

    run(body)
    assert sorted(stored.args()) == list(range(20))


def test_says_why(shop: Shop, run: Run, stored: Stored) -> None:
    """A refusal comes with its constraint, a missing table with the command that creates it."""

    async def body(target: Any) -> None:
        await target.execute(
            text("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (task = 'x')")
        )
        await target.commit()
        with pytest.raises(RowRefused, match="nothing"):
            async with shop.app.outbox.using(target):
                shop.add.delay(1, 0)
        await target.rollback()
        await target.execute(text("DROP SCHEMA outbox CASCADE"))
        await target.commit()
        with pytest.raises(OutboxNotReady, match="outbox-migrate up"):
            async with shop.app.outbox.using(target):
                shop.add.delay(1, 0)
        await target.rollback()

    run(body)


def test_refuses_plain_with(shop: Shop, run: Run) -> None:
    """`with` cannot wait for the insert: the error says what can."""

    async def body(target: Any) -> None:
        for block in (shop.app.outbox.using, shop.app.outbox.transaction):
            with pytest.raises(UnusableTarget, match="async with"), block(target):
                pass

    run(body)


def test_refuses_a_connection_that_is_not_connected(shop: Shop, engine: AsyncEngine) -> None:
    """An AsyncConnection nobody awaited has no transaction."""
    with pytest.raises(UnusableTarget, match="connected"):
        shop.app.outbox.using(engine.connect())
