"""psycopg_pool: its connections are joined as any, and come back to the pool with nothing left."""

import asyncio
from contextlib import suppress
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from celery_inbox import idempotent
from celery_outbox import OutboxCelery
from tests.ecosystem.conftest import Stored

app = OutboxCelery("shop", set_as_current=False)


@app.task(name="shop.bill")
def bill(number: int) -> None:
    """Send the invoice."""


def test_a_pool(database: str, stored: Stored) -> None:
    """What one borrower rolled back is not stored by the next, on the same connection."""
    with ConnectionPool(database, min_size=1, max_size=1) as pool:
        with suppress(ZeroDivisionError), pool.connection() as connection:
            with app.outbox.using(connection):
                bill.delay(1)
            raise ZeroDivisionError
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        assert stored() == []
        with pool.connection() as connection, app.outbox.using(connection):
            bill.delay(2)
        with pool.connection() as connection, app.outbox.transaction(connection):
            bill.delay(3)

    assert [task for task, _ in stored()] == ["shop.bill", "shop.bill"]


def test_an_async_pool(database: str, stored: Stored) -> None:
    """The same with asyncio."""

    async def place() -> None:
        async with AsyncConnectionPool(database, min_size=1, max_size=1, open=False) as pool:
            with suppress(ZeroDivisionError):
                async with pool.connection() as connection:
                    async with app.outbox.using(connection):
                        bill.delay(1)
                    raise ZeroDivisionError
            async with pool.connection() as connection, app.outbox.using(connection):
                bill.delay(2)

    asyncio.run(place())
    assert [task for task, _ in stored()] == ["shop.bill"]


def test_idempotent_takes_a_pool(database: str, stored: Stored, effects: Any) -> None:
    """Its tasks borrow a connection for their transaction, in which they send as well."""
    with ConnectionPool(database, min_size=1, max_size=1) as pool:

        @app.task(bind=True, name="shop.charge", shared=False)
        @idempotent(pool)
        def charge(self: Any, conn: psycopg.Connection[Any], number: int) -> None:
            conn.execute("INSERT INTO effect VALUES (%s)", (f"charged {number}",))
            bill.delay(number)

        for _ in range(2):
            charge.apply(args=(7,), task_id="charge-7")

    assert effects() == ["charged 7", "charged 7"]  # .apply() is no message, and has no twin
    assert [task for task, _ in stored()] == ["shop.bill", "shop.bill"]
