"""AsyncConnection: `.delay()` needs no await, and is as exact as on a Connection."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from celery_outbox import OutboxClosed, UnusableTarget
from tests.producer.conftest import Shop, Stored

AsyncConnection = psycopg.AsyncConnection[Any]


def run(database: str, body: Callable[[AsyncConnection], Awaitable[object]]) -> None:
    """Run `body` with a connection that commits at the end."""

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await body(connection)

    asyncio.run(main())


def test_savepoints(shop: Shop, database: str, stored: Stored) -> None:
    """Rows share the fate of the savepoint they were sent in."""

    async def body(connection: AsyncConnection) -> None:
        async with shop.app.outbox.using(connection) as joined:
            assert joined is connection
            shop.add.delay(1, 0)
            async with connection.transaction():
                shop.add.delay(2, 0)
            with suppress(KeyError):
                async with connection.transaction():
                    shop.add.delay(3, 0)
                    raise KeyError
            await connection.execute("SAVEPOINT a")
            shop.add.delay(4, 0)
            await connection.execute("ROLLBACK TO a")
            shop.add.delay(5, 0)
        assert stored.rows() == []

    run(database, body)
    assert stored.args() == [1, 2, 5]


def test_transaction(shop: Shop, database: str, stored: Stored) -> None:
    """`async with transaction` commits, rolls back, and nests."""

    async def body(connection: AsyncConnection) -> None:
        async with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 0)
            with suppress(KeyError):
                async with shop.app.outbox.transaction(connection):
                    shop.add.delay(2, 0)
                    raise KeyError
        assert stored.args() == [1]
        with suppress(KeyError):
            async with shop.app.outbox.transaction(connection):
                shop.add.delay(3, 0)
                raise KeyError

    run(database, body)
    assert stored.args() == [1]


def test_child_tasks(shop: Shop, database: str, stored: Stored) -> None:
    """Child tasks share the block while it is open; one that outlives it is told so."""

    async def body(connection: AsyncConnection) -> None:
        ended = asyncio.Event()

        async def send(number: int) -> None:
            shop.add.delay(number, 0)
            await connection.execute("SELECT 1")

        async def straggler() -> None:
            await ended.wait()
            shop.add.delay(9, 0)

        async with shop.app.outbox.using(connection):
            late = asyncio.create_task(straggler())
            async with asyncio.TaskGroup() as group:
                for number in range(5):
                    group.create_task(send(number))
        ended.set()
        with pytest.raises(OutboxClosed):
            await late

    run(database, body)
    assert sorted(stored.args()) == [0, 1, 2, 3, 4]


def test_a_call_without_a_block(shop: Shop, database: str) -> None:
    """Is told of the block that it needs."""

    async def body(connection: AsyncConnection) -> None:
        with pytest.raises(UnusableTarget, match=r"async with app\.outbox\.using"):
            shop.add.apply_async((1, 0), outbox=connection)

    run(database, body)


def test_a_block_that_was_abandoned(shop: Shop, database: str) -> None:
    """Never ends, so that nothing would await what a later call sends: that is refused."""

    async def body(connection: AsyncConnection) -> None:
        async def enter() -> None:
            await shop.app.outbox.using(connection).__aenter__()

        await asyncio.create_task(enter())
        await asyncio.sleep(0)  # the loop lets go of the task
        gc.collect()
        with pytest.raises(UnusableTarget, match=r"async with app\.outbox\.using"):
            shop.add.apply_async((1, 0), outbox=connection)

    run(database, body)


def test_blocks_of_other_tasks_do_not_mix(shop: Shop, database: str, stored: Stored) -> None:
    """Concurrent tasks, each with a connection of its own, send into their own transactions."""

    async def transact(number: int, barrier: asyncio.Barrier) -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            with suppress(KeyError):
                async with shop.app.outbox.transaction(connection):
                    await barrier.wait()
                    shop.add.delay(number, 0)
                    await barrier.wait()
                    if number % 2:
                        raise KeyError

    async def main() -> None:
        barrier = asyncio.Barrier(6)
        await asyncio.gather(*(transact(number, barrier) for number in range(6)))

    asyncio.run(main())
    assert sorted(stored.args()) == [0, 2, 4]


def test_worker_threads(shop: Shop, database: str, stored: Stored) -> None:
    """`asyncio.to_thread` carries the block along."""

    async def body(connection: AsyncConnection) -> None:
        async with shop.app.outbox.using(connection):
            await asyncio.gather(*(asyncio.to_thread(shop.add.delay, n, 0) for n in range(20)))

    run(database, body)
    assert sorted(stored.args()) == list(range(20))


def test_cancellation_rolls_back(shop: Shop, database: str, stored: Stored) -> None:
    """A task cancelled in the middle leaves no row, and the connection usable."""

    async def body(connection: AsyncConnection) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05), shop.app.outbox.transaction(connection):
                shop.add.delay(1, 0)
                await connection.execute("SELECT pg_sleep(30)")
        async with shop.app.outbox.transaction(connection):
            shop.add.delay(2, 0)

    run(database, body)
    assert stored.args() == [2]


def test_a_cancellation_that_misses_the_insert(
    shop: Shop, database: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked as the insert ends: what follows does not begin, nothing is left."""

    async def body(connection: AsyncConnection) -> None:
        with psycopg.connect(database) as blocker:
            blocker.execute("LOCK TABLE outbox.message IN EXCLUSIVE MODE")

            async def miss(**_: object) -> None:
                blocker.rollback()  # so that the insert goes on

            monkeypatch.setattr(connection, "_try_cancel", miss)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1), shop.app.outbox.transaction(connection):
                    shop.add.delay(1, 0)
                    await connection.execute("SELECT pg_sleep(30)")
        async with shop.app.outbox.transaction(connection):
            shop.add.delay(2, 0)

    run(database, body)
    assert stored.args() == [2]


def test_refuses_plain_with(shop: Shop, database: str) -> None:
    """`with` cannot wait for the insert: the error says what can."""

    async def body(connection: AsyncConnection) -> None:
        for block in (shop.app.outbox.using, shop.app.outbox.transaction):
            with pytest.raises(UnusableTarget, match="async with"), block(connection):
                pass
        with pytest.raises(UnusableTarget, match="async with"):
            shop.add.apply_async((1, 0), outbox=connection)

    run(database, body)


def test_joins_the_open_block_per_call(shop: Shop, database: str, stored: Stored) -> None:
    """Within its own block an AsyncConnection can be named for a call, and for an event."""

    async def body(connection: AsyncConnection) -> None:
        async with shop.app.outbox.using(connection):
            shop.add.apply_async((1, 0), outbox=connection)
            shop.app.outbox.publish(connection, {}, exchange="events", routing_key="order.paid")

    run(database, body)
    assert [row.task for row in stored.rows()] == ["shop.add", "order.paid"]


def test_a_connection_in_async_with(shop: Shop, database: str, stored: Stored) -> None:
    """A synchronous connection may be joined in asynchronous code too."""

    async def main() -> None:
        with psycopg.connect(database) as connection:
            async with shop.app.outbox.using(connection):
                shop.add.delay(1, 0)

    asyncio.run(main())
    assert stored.args() == [1]


def test_cancel(shop: Shop, database: str, stored: Stored) -> None:
    """On an AsyncConnection `cancel` is awaited."""

    async def body(connection: AsyncConnection) -> None:
        async with shop.app.outbox.using(connection):
            first, _ = shop.add.delay(1, 0), shop.add.delay(2, 0)
            assert await shop.app.outbox.cancel(connection, first.id) is True
            assert await shop.app.outbox.cancel(connection, "unknown") is False

    run(database, body)
    assert stored.args() == [2]
