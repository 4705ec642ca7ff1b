"""What every kind of transaction owes a task, written once and asked of all of them.

A new driver is done when it is in `drivers.py` and passes here. What is particular to one library
is in a file of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import copy_context
from typing import Any

import pytest

from celery_outbox import (
    Outbox,
    OutboxClosed,
    OutboxError,
    OutboxNotReady,
    RowRefused,
    UnusableTarget,
)
from celery_outbox.message import Message
from celery_outbox.statements import commands as statements
from celery_outbox.statements.insert import Style, insert
from tests.producer.conftest import Shop, Stored
from tests.producer.drivers import ASYNCHRONOUS, DJANGO, SYNCHRONOUS, Django, Driver, Talk, opened
from tests.producer.soaking import finished

Body = Callable[[Talk, Outbox], Awaitable[None]]
Run = Callable[[Body], None]


@pytest.fixture(params=[*SYNCHRONOUS, *ASYNCHRONOUS, DJANGO], ids=str)
def run(request: pytest.FixtureRequest, shop: Shop, database: str) -> Run:
    """Run a coroutine with one that is open, and its outbox."""
    driver: Driver = request.param
    if driver is DJANGO:
        request.getfixturevalue("django_database")

    async def main(body: Body) -> None:
        talk = await opened(driver, database)
        try:
            await talk.execute("SELECT 1")
            await body(talk, shop.app.outbox)
        finally:
            await talk.close()

    return lambda body: finished_by(driver, main(body))


def finished_by(driver: Driver, coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine: outside of any event loop, as Django asks, where nothing is awaited."""
    if driver in ASYNCHRONOUS:
        asyncio.run(coroutine)
    else:
        finished(coroutine)


def test_commit(shop: Shop, run: Run, stored: Stored) -> None:
    """The row appears at the commit, not before, under the id of the AsyncResult."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox) as joined:
            assert joined is talk.target
            result = shop.add.delay(1, 0)
        assert stored.rows() == []
        await talk.commit()
        assert [row.message_id for row in stored.rows()] == [result.id]

    run(body)


def test_an_error_that_was_swallowed(
    request: pytest.FixtureRequest, shop: Shop, run: Run, stored: Stored
) -> None:
    """A COMMIT rolls back after that, without a word: `transaction` does not end well."""
    if "asyncpg" in request.node.name:
        pytest.skip("asyncpg does not tell whether its transaction has failed")

    async def body(talk: Talk, outbox: Outbox) -> None:
        async def fail() -> None:
            async with talk.transaction(outbox):
                shop.add.delay(1, 0)
                with suppress(Exception):
                    await talk.execute("SELECT 1 / 0")

        await talk.rollback()
        with pytest.raises(UnusableTarget, match="its transaction has failed"):
            await fail()
        async with talk.transaction(outbox):
            shop.add.delay(2, 0)
        await talk.commit()

    run(body)
    assert stored.args() == [2]


def test_rollback(shop: Shop, run: Run, stored: Stored) -> None:
    """After a rollback no row is left, and the next transaction has none of it."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            shop.add.delay(1, 0)
        await talk.rollback()
        await talk.execute("SELECT 1")
        await talk.commit()

    run(body)
    assert stored.rows() == []


def test_ends_inside_the_block(shop: Shop, run: Run, stored: Stored) -> None:
    """A commit inside ends one transaction; what follows belongs to the next."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            shop.add.delay(1, 0)
            await talk.commit()
            assert stored.args() == [1]
            await talk.execute("SELECT 1")
            shop.add.delay(2, 0)
            await talk.rollback()
            await talk.execute("SELECT 1")
            shop.add.delay(3, 0)
            await talk.commit()

    run(body)
    assert stored.args() == [1, 3]


def test_savepoints(shop: Shop, run: Run, stored: Stored) -> None:
    """The library's savepoints take along what was sent inside, and only that."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            shop.add.delay(1, 0)
            with suppress(KeyError):
                async with talk.savepoint():
                    shop.add.delay(2, 0)
                    raise KeyError
            async with talk.savepoint():
                shop.add.delay(3, 0)
            shop.add.delay(4, 0)
        await talk.commit()

    run(body)
    assert stored.args() == [1, 3, 4]


def test_savepoints_in_sql(shop: Shop, run: Run, stored: Stored) -> None:
    """Savepoints that the library knows nothing of are as exact."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            shop.add.delay(1, 0)
            await talk.execute("SAVEPOINT a")
            shop.add.delay(2, 0)
            await talk.execute("ROLLBACK TO a")
            shop.add.delay(3, 0)
        await talk.commit()

    run(body)
    assert stored.args() == [1, 3]


def test_an_error_that_is_caught(shop: Shop, run: Run, stored: Stored) -> None:
    """What was sent before an error is stored if the transaction commits all the same."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        with suppress(KeyError):
            async with talk.using(outbox):
                shop.add.delay(1, 0)
                raise KeyError
        await talk.commit()

    run(body)
    assert stored.args() == [1]


def test_seen_by_the_next_query(shop: Shop, run: Run) -> None:
    """Whatever reads the outbox in the transaction finds what was sent before it."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            for number in (1, 2):
                shop.add.delay(number, 0)
                assert await talk.execute("SELECT count(*) FROM outbox.message") == number

    run(body)


def test_nested(shop: Shop, run: Run, stored: Stored) -> None:
    """Blocks of one connection nest, and a call may name it inside."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            shop.add.delay(1, 0)
            async with talk.using(outbox):
                shop.add.delay(2, 0)
                shop.add.apply_async((3, 0), outbox=talk.target)
            shop.add.delay(4, 0)
        await talk.commit()

    run(body)
    assert stored.args() == [1, 2, 3, 4]


def test_without_a_block(shop: Shop, run: Run, stored: Stored) -> None:
    """Within a transaction `outbox=` is enough, for a task as for an event."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        shop.add.apply_async((1, 0), outbox=talk.target)
        outbox.publish(talk.target, {}, exchange="events", routing_key="order.paid")
        await talk.commit()
        await talk.execute("SELECT 1")
        shop.add.apply_async((2, 0), outbox=talk.target)
        await talk.rollback()

    run(body)
    assert [row.task for row in stored.rows()] == ["shop.add", "order.paid"]


def test_after_the_block(shop: Shop, run: Run, stored: Stored) -> None:
    """A block that has ended takes nothing, even from what was started inside."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            inherited = copy_context()
            inherited.run(shop.add.delay, 1, 0)
        with pytest.raises(OutboxClosed):
            inherited.run(shop.add.delay, 2, 0)
        await talk.commit()

    run(body)
    assert stored.args() == [1]


def test_every_column(shop: Shop, run: Run, stored: Stored) -> None:
    """One row or many, each column holds what was given."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            for _ in range(3):
                shop.add.apply_async(
                    ("\N{SNOWMAN} 100%s", 0), countdown=60, expires=90, headers={"a": "%b"}
                )
        await talk.commit()

    run(body)
    assert stored.args() == ["\N{SNOWMAN} 100%s"] * 3
    for row in stored.rows():
        assert row.available_at < row.expires_at
        assert row.headers["a"] == "%b"


def test_cancel(shop: Shop, run: Run, stored: Stored) -> None:
    """A message is taken back in the same transaction; an unknown one is not."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            first, _ = shop.add.delay(1, 0), shop.add.delay(2, 0)
            for task_id, expected in ((first.id, True), ("unknown", False)):
                answer = outbox.cancel(talk.target, task_id)
                assert (answer if isinstance(answer, bool) else await answer) is expected
        await talk.commit()

    run(body)
    assert stored.args() == [2]


def test_dedup_key(shop: Shop, run: Run, stored: Stored) -> None:
    """Of two with one key the first is stored, and both results are its."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            results = [shop.add.apply_async((n, 0), dedup_key="k") for n in (1, 2)]
        await talk.commit()
        assert results[0].id == results[1].id

    run(body)
    assert stored.args() == [1]


def test_transaction(shop: Shop, run: Run, stored: Stored) -> None:
    """`transaction` commits, rolls back, and is a savepoint when nested."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        await talk.commit()
        if isinstance(talk, Django):  # in a transaction of the project's own, all are savepoints
            talk.in_autocommit()
        async with talk.transaction(outbox):
            shop.add.delay(1, 0)
            with suppress(KeyError):
                async with talk.transaction(outbox):
                    shop.add.delay(2, 0)
                    raise KeyError
            async with talk.transaction(outbox):
                shop.add.delay(3, 0)
            assert stored.rows() == []
        assert stored.args() == [1, 3]
        with suppress(KeyError):
            async with talk.transaction(outbox):
                shop.add.delay(4, 0)
                raise KeyError

    run(body)
    assert stored.args() == [1, 3]


def test_a_failed_transaction(shop: Shop, run: Run, stored: Stored) -> None:
    """Nothing that was sent after a failure is stored; most drivers can say so at once."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        with suppress(OutboxError):
            async with talk.using(outbox):
                with suppress(Exception):  # each library has its own
                    await talk.execute("SELECT 1/0")
                shop.add.delay(1, 0)
        await talk.rollback()
        await talk.execute("SELECT 1")
        await talk.commit()

    run(body)
    assert stored.rows() == []


def test_a_refusal_says_why(shop: Shop, run: Run, stored: Stored) -> None:
    """The constraint is named, the payload is not, and nothing can be committed."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        await talk.execute("ALTER TABLE outbox.message ADD CONSTRAINT nothing CHECK (task = 'x')")
        await talk.commit()
        await talk.execute("CREATE TABLE effect ()")
        with pytest.raises(RowRefused, match="nothing") as refused:
            async with talk.using(outbox):
                shop.add.delay("the payload", 0)
        assert "the payload" not in str(refused.value)
        with suppress(Exception):  # each library has its own way to say that it failed
            await talk.commit()
        await talk.rollback()
        assert await talk.execute("SELECT to_regclass('effect')::text") is None

    run(body)


def test_the_first_error_is_the_one_that_is_raised(shop: Shop, run: Run) -> None:
    """Where the block has failed already, a failure to store hides nothing."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        await talk.execute("DROP SCHEMA outbox CASCADE")
        await talk.commit()
        await talk.execute("SELECT 1")

        async def fail() -> None:
            async with talk.using(outbox):
                # Inserted at once it is refused at once, as with psycopg2 and Django.
                with suppress(OutboxNotReady):
                    shop.add.delay(1, 0)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await fail()
        await talk.rollback()

    run(body)


def test_what_it_is_not(shop: Shop, run: Run) -> None:
    """Nothing that belongs to it is taken for it."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        with pytest.raises(UnusableTarget):
            outbox.using([talk.target])

    run(body)


def test_many_at_once(shop: Shop, run: Run, stored: Stored) -> None:
    """They are where the code sent them, among what was sent one by one; savepoints included."""

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            shop.add.delay(0, 0)
            ids = outbox.send_many(shop.add, [(number, "ü") for number in range(1, 6)])
            with suppress(KeyError):
                async with talk.savepoint():
                    outbox.send_many(shop.add, [(number, 0) for number in range(10, 15)])
                    raise KeyError
            shop.add.delay(6, 0)
            outbox.send_many(shop.add, [(7, 0), (8, 0), (9, 0)], ordering_key="k")
        await talk.commit()
        assert [row.message_id for row in stored.rows()][1:6] == [*ids]

    run(body)
    assert stored.args() == [*range(10)]
    assert [row.ordering_key for row in stored.rows()][-4:] == [None, "k", "k", "k"]


def test_a_loop_is_inserted_in_portions(
    shop: Shop, run: Run, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is, and in its order: no more is buffered than a portion."""
    monkeypatch.setattr(statements, "PORTION", 3)

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            for number in range(10):
                shop.add.delay(number, 0)
        await talk.commit()

    run(body)
    assert stored.args() == [*range(10)]


def test_a_loop_of_large_messages(
    shop: Shop, run: Run, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is inserted by its bytes: where nothing must be awaited, few large ones are in memory."""
    monkeypatch.setattr(statements, "MAX_BYTES", 20_000)
    sizes: list[int] = []

    def counting(schema: str, messages: Sequence[Message], style: Style) -> Any:
        sizes.append(len(messages))
        return insert(schema, messages, style)

    monkeypatch.setattr(statements, "insert", counting)

    async def body(talk: Talk, outbox: Outbox) -> None:
        async with talk.using(outbox):
            for number in range(10):
                shop.add.delay(number, "x" * 7000)
        assert sizes == [10] if talk.asynchronous else max(sizes) <= 3
        await talk.commit()

    run(body)
    assert stored.args() == [*range(10)]
