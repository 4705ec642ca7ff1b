"""Threads, tasks and greenlets that share a connection lose nothing: stored, or refused."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from celery_outbox import OutboxError, RowRefused, UnusableTarget
from outbox_migrations import upgrade
from tests.producer.conftest import Connection, Shop, Stored, make_shop

Send = Callable[[int], object]


def ways(shop: Shop, connection: Connection) -> dict[str, Send]:
    """Every way to name a connection for one send."""

    def using(number: int) -> None:
        with shop.app.outbox.using(connection):
            shop.add.delay(number, 0)

    def event(number: int) -> None:
        shop.app.outbox.publish(connection, [number], exchange="events")

    return {
        "outbox=": lambda number: shop.add.apply_async((number, 0), outbox=connection),
        "using": using,
        "publish": event,
    }


@pytest.mark.parametrize("threads", [2, 8])
@pytest.mark.parametrize("way", ["outbox=", "using", "publish"])
def test_threads(
    shop: Shop, connection: Connection, stored: Stored, way: str, threads: int
) -> None:
    """Of what threads send at the same moment on one connection, everything is committed."""
    send = ways(shop, connection)[way]
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, 50 * threads, threads):
            [*pool.map(send, range(start, start + threads))]
            connection.commit()

    assert len(stored.rows()) == 50 * threads


def test_threads_roll_back_together(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A rollback takes all of it, a savepoint what was sent inside."""
    send = ways(shop, connection)["outbox="]
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, 120, 12):
            [*pool.map(send, range(start, start + 4))]
            with suppress(KeyError), connection.transaction():
                [*pool.map(send, range(start + 4, start + 8))]
                raise KeyError
            with connection.transaction():
                [*pool.map(send, range(start + 8, start + 12))]
            if start % 24:
                connection.rollback()
            else:
                connection.commit()

    kept = [start + step for start in range(0, 120, 24) for step in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert sorted(stored.args()) == kept


def test_an_inherited_block(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Threads that send inside a block as it ends: what was not refused is stored."""
    accepted: list[int] = []

    def send(first: int) -> None:
        for number in range(first, first + 100):
            try:
                shop.add.delay(number, 0)
            except OutboxError:
                return
            accepted.append(number)

    for start in range(0, 2000, 400):
        with shop.app.outbox.using(connection):
            threads = [
                threading.Thread(target=contextvars.copy_context().run, args=(send, start + first))
                for first in range(0, 400, 100)
            ]
            for thread in threads:
                thread.start()
            threads[0].join()
        for thread in threads:
            thread.join()
        connection.commit()

    assert sorted(stored.args()) == sorted(accepted)


def test_gathered_blocks(shop: Shop, database: str, stored: Stored) -> None:
    """Ten blocks at a time on one AsyncConnection."""

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:

            async def send(number: int) -> None:
                async with shop.app.outbox.using(connection):
                    shop.add.delay(number, 0)
                    if number % 2:
                        await asyncio.sleep(0)
                    shop.add.apply_async((number, 0), outbox=connection)

            for start in range(0, 100, 10):
                await asyncio.gather(*map(send, range(start, start + 10)))
                await connection.commit()

    asyncio.run(main())
    assert sorted(stored.args()) == sorted([*range(100)] * 2)


def test_an_async_connection_without_a_block(shop: Shop, database: str, stored: Stored) -> None:
    """Within a transaction `outbox=` is enough, from threads too; whatever ends it decides."""

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:

            def send(number: int) -> None:
                shop.add.apply_async((number, 0), outbox=connection)

            for start in (0, 10, 20):
                await connection.execute("SELECT 1")
                await asyncio.gather(
                    *(asyncio.to_thread(send, start + number) for number in range(10))
                )
                if start == 10:
                    await connection.rollback()
                await connection.commit()

    asyncio.run(main())
    assert sorted(stored.args()) == [*range(10), *range(20, 30)]


def test_two_apps_on_one_connection(
    shop: Shop, database: str, connection: Connection, stored: Stored
) -> None:
    """Each row goes to the outbox of its own app, blocks of both open or none."""
    upgrade(database, schema="mine", component="outbox")
    mine = make_shop(None, outbox_schema="mine")
    with shop.app.outbox.using(connection), mine.app.outbox.using(connection):
        mine.add.delay(11, 0)
        shop.add.apply_async((1, 0), outbox=connection)
        mine.add.delay(12, 0)
        mine.add.delay(13, 0)
    shop.add.apply_async((2, 0), outbox=connection)
    connection.commit()

    assert stored.args() == [1, 2]
    assert stored.args("mine") == [11, 12, 13]


class TestWithinACopy:
    """psycopg holds the connection's lock in a COPY and a stream: nothing waits for it."""

    def test_every_way(self, shop: Shop, connection: Connection, stored: Stored) -> None:
        """What is sent in the loop is stored right after it."""
        sends = ways(shop, connection).values()
        with connection.cursor() as cursor:
            connection.execute("CREATE TEMP TABLE numbers (n int)")
            with cursor.copy("COPY numbers FROM STDIN") as copy:
                for number, send in enumerate(sends):
                    send(number)
                    copy.write_row((number,))
                shop.add.apply_async((7, 0), outbox=connection, dedup_key="a")
            for (number,) in cursor.stream("SELECT n FROM numbers ORDER BY n"):
                [*sends][number](number + 3)
            again = shop.add.apply_async((8, 0), outbox=connection, dedup_key="a")
            connection.commit()

        rows = stored.rows()
        assert [row.task for row in rows].count("shop.add") == 5
        assert len(rows) == 7
        assert again.id in [row.message_id for row in rows]

    def test_on_asyncio(self, shop: Shop, database: str, stored: Stored) -> None:
        """The same with a block of its own for each send."""

        async def main() -> None:
            async with await psycopg.AsyncConnection.connect(database) as connection:
                cursor = connection.cursor()
                async for (number,) in cursor.stream("SELECT generate_series(1, 3)"):
                    async with shop.app.outbox.using(connection):
                        shop.add.delay(number, 0)
                    shop.add.apply_async((number + 10, 0), outbox=connection)

        asyncio.run(main())
        assert stored.args() == [1, 11, 2, 12, 3, 13]

    def test_a_copy_that_fails(self, shop: Shop, connection: Connection, stored: Stored) -> None:
        """Takes along what was sent inside it, and nothing else."""
        shop.add.apply_async((1, 0), outbox=connection)
        with suppress(KeyError), connection.transaction(), connection.cursor() as cursor:
            connection.execute("CREATE TEMP TABLE numbers (n int)")
            with cursor.copy("COPY numbers FROM STDIN"):
                shop.add.apply_async((2, 0), outbox=connection)
                raise KeyError
        connection.commit()

        assert stored.args() == [1]


def test_a_failure_is_told_at_the_commit(shop: Shop, connection: Connection) -> None:
    """What could not be inserted at once raises at the next operation, which the commit is."""
    connection.execute("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (task = 'x')")
    for (_,) in connection.cursor().stream("SELECT 1"):
        shop.add.apply_async((1, 0), outbox=connection)
    with pytest.raises(RowRefused, match="nothing"):
        connection.commit()


class TestPool:
    """A connection that goes back to a pool takes nothing along to whoever borrows it next."""

    def test_given_back_inside_the_block(self, shop: Shop, database: str, stored: Stored) -> None:
        """A send begins the transaction, so the pool sees one and rolls it back."""
        with ConnectionPool(database, min_size=1, max_size=1) as pool:
            connection = pool.getconn()
            with shop.app.outbox.using(connection):
                shop.add.delay(1, 0)
                pool.putconn(connection)
                with pytest.raises(UnusableTarget, match="its pool"):
                    shop.add.delay(2, 0)
            with pool.connection() as borrowed:
                assert borrowed is connection
                borrowed.execute("SELECT 1")

        assert stored.rows() == []

    def test_on_asyncio(self, shop: Shop, database: str, stored: Stored) -> None:
        """There the end of the block says that its tasks are gone."""

        async def main() -> None:
            async with AsyncConnectionPool(database, min_size=1, max_size=1, open=False) as pool:
                connection = await pool.getconn()
                block = shop.app.outbox.using(connection)
                await block.__aenter__()
                shop.add.delay(1, 0)
                await pool.putconn(connection)
                with pytest.raises(UnusableTarget, match="its pool"):
                    await block.__aexit__(None, None, None)
                async with pool.connection() as borrowed:
                    assert borrowed is connection
                    await borrowed.execute("SELECT 1")

        asyncio.run(main())
        assert stored.rows() == []


def test_a_timeout_of_notifications_breaks_nothing_off(
    shop: Shop, connection: Connection, stored: Stored
) -> None:
    """Waiting for notifications is no operation of the transaction: the INSERT comes after it."""
    connection.execute("LISTEN news")
    with shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        assert [*connection.notifies(timeout=0)] == []
    connection.commit()

    assert stored.args() == [1]


def test_an_error_in_a_pipeline_repeats_no_payload(shop: Shop, connection: Connection) -> None:
    """There the server's answer reaches the caller's own statement, without its DETAIL."""
    connection.execute("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (task = 'x')")

    def send() -> None:
        with shop.app.outbox.using(connection), connection.pipeline():
            shop.add.delay("the payload", 0)
            connection.execute("SELECT 1").fetchone()

    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        send()
    error = caught.value
    assert "nothing" in str(error)
    assert error.diag.message_detail is None
