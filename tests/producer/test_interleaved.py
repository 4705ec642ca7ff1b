"""Blocks need not nest: where generators take turns, each task joins its own transaction."""

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

from celery_outbox import AmbiguousBlock, OutboxClosed, UnusableTarget
from tests.producer.conftest import Connection, Shop, Stored

Steps = Generator[None, None, None]


@pytest.fixture
def other(database: str) -> Iterator[Connection]:
    """A second connection."""
    with psycopg.connect(database) as other:
        yield other


def sent_to(connection: Connection) -> list[int]:
    """Return the first arguments of what the transaction of `connection` holds, and end it."""
    query = "SELECT convert_from(body, 'UTF8')::json -> 0 -> 0 FROM outbox.message ORDER BY id"
    found = [row[0] for row in connection.execute(query)]
    connection.rollback()
    return found


def steps(shop: Shop, connection: Connection, first: int) -> Steps:
    """Send three tasks in a block, with a pause before each."""
    with shop.app.outbox.using(connection):
        for number in range(first, first + 3):
            yield
            shop.add.delay(number, 0)


@contextmanager
def wrapped(shop: Shop, connection: Connection) -> Iterator[None]:
    """A context manager of the user's own around a block."""
    with shop.app.outbox.using(connection):
        yield


def test_generators_take_turns(shop: Shop, connection: Connection, other: Connection) -> None:
    """Two generators with a block each, in turn; the first to begin ends first."""
    turns = [steps(shop, connection, 1), steps(shop, other, 11)]
    for _ in range(4):
        for generator in turns:
            next(generator, None)

    assert sent_to(connection) == [1, 2, 3]
    assert sent_to(other) == [11, 12, 13]
    with shop.app.outbox.using(connection):
        shop.add.delay(4, 0)
    assert sent_to(connection) == [4]


def test_generators_with_context_managers_take_turns(
    shop: Shop, connection: Connection, other: Connection
) -> None:
    """The same where the blocks are inside context managers of the user's own."""

    def turn(target: Connection, first: int) -> Steps:
        with ExitStack() as stack:
            stack.enter_context(wrapped(shop, target))
            for number in range(first, first + 3):
                yield
                shop.add.delay(number, 0)

    turns = [turn(connection, 1), turn(other, 11)]
    for _ in range(4):
        for generator in reversed(turns):
            next(generator, None)

    assert sent_to(connection) == [1, 2, 3]
    assert sent_to(other) == [11, 12, 13]


def test_async_generators_take_turns(shop: Shop, connection: Connection, other: Connection) -> None:
    """The same on asyncio, within one task."""

    async def turn(target: Connection, first: int) -> AsyncIterator[None]:
        async with shop.app.outbox.using(target):
            for number in range(first, first + 3):
                yield
                await asyncio.sleep(0)
                shop.add.delay(number, 0)

    async def main() -> None:
        turns = [turn(connection, 1), turn(other, 11)]
        for _ in range(4):
            for generator in turns:
                await anext(generator, None)

    asyncio.run(main())
    assert sent_to(connection) == [1, 2, 3]
    assert sent_to(other) == [11, 12, 13]


def test_a_generator_around_and_within(
    shop: Shop, connection: Connection, other: Connection
) -> None:
    """Code that runs a generator stays in its own block, and the generator in its own."""
    generator = steps(shop, other, 11)
    next(generator)
    with shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        for _ in generator:
            shop.add.delay(2, 0)
        with wrapped(shop, other):
            shop.add.delay(14, 0)
            with shop.app.outbox.using(connection):
                shop.add.delay(3, 0)
        with shop.app.outbox.using(other):
            shop.add.delay(15, 0)

    assert sent_to(connection) == [1, 2, 2, 3]
    assert sent_to(other) == [11, 12, 13, 14, 15]


@pytest.mark.parametrize("ended", [0, 1])
def test_any_order_of_ends(
    shop: Shop, connection: Connection, other: Connection, ended: int
) -> None:
    """Whichever of two overlapping blocks ends first, the other goes on; then nothing is left."""
    blocks = [shop.app.outbox.using(connection), shop.app.outbox.using(other)]
    for block in blocks:
        block.__enter__()
    blocks.pop(ended).__exit__(None, None, None)
    shop.add.delay(1, 0)
    blocks.pop().__exit__(None, None, None)

    assert [sent_to(connection), sent_to(other)] == ([[], [1]] if ended == 0 else [[1], []])
    with pytest.raises(Exception, match="no transaction to join"):
        shop.add.delay(2, 0)


def test_what_cannot_be_known_is_refused(
    shop: Shop, connection: Connection, other: Connection
) -> None:
    """Whoever runs two generators is in neither block, and is told of `outbox=`."""
    turns = [steps(shop, connection, 1), steps(shop, other, 11)]
    for generator in turns:
        next(generator)
    with pytest.raises(AmbiguousBlock, match="outbox="):
        shop.add.delay(0, 0)
    shop.add.apply_async((5, 0), outbox=connection)
    for generator in turns:
        generator.close()

    assert sent_to(connection) == [5]
    assert sent_to(other) == []


def test_threads_started_inside(shop: Shop, connection: Connection, other: Connection) -> None:
    """A thread inherits the innermost block of nested ones, also from within a generator."""

    def send(number: int) -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(shop.add.delay, number, 0))
        thread.start()
        thread.join()

    def turn() -> Steps:
        with shop.app.outbox.using(connection), shop.app.outbox.using(other):
            send(2)
            yield

    with shop.app.outbox.using(connection), shop.app.outbox.using(other):
        send(1)
    [*turn()]

    assert sent_to(other) == [1, 2]


def test_a_block_that_ends_elsewhere(shop: Shop, connection: Connection) -> None:
    """An async generator left behind is ended by the loop, in a task of its own: nothing stays."""

    async def turn() -> AsyncIterator[None]:
        async with shop.app.outbox.using(connection):
            shop.add.delay(1, 0)
            yield

    async def main() -> None:
        async for _ in turn():
            break
        gc.collect()
        await asyncio.sleep(0.01)
        with pytest.raises(Exception, match="no transaction to join"):
            shop.add.delay(2, 0)

    asyncio.run(main())
    assert sent_to(connection) == [1]


def test_an_heir_of_an_ended_block(shop: Shop, connection: Connection, other: Connection) -> None:
    """What outlives the inner of two blocks does not slip into the outer one's transaction."""
    with shop.app.outbox.using(connection):
        with shop.app.outbox.using(other):
            inherited = contextvars.copy_context()
        with pytest.raises(OutboxClosed):
            inherited.run(shop.add.delay, 1, 0)

    assert sent_to(connection) == []


@pytest.mark.parametrize("kind", ["using", "transaction"])
def test_a_block_is_entered_once_at_a_time(
    shop: Shop, connection: Connection, kind: str, stored: Stored
) -> None:
    """The same object again, inside, is refused; after its end it may be entered anew."""
    begin: Callable[..., AbstractContextManager[Any]] = getattr(shop.app.outbox, kind)
    block = begin(connection)
    for number in (1, 2):
        with block:
            with pytest.raises(UnusableTarget, match="open already"), block:
                pass
            shop.add.delay(number, 0)
    connection.commit()

    assert stored.args() == [1, 2]


def test_no_frame_is_kept(shop: Shop, connection: Connection) -> None:
    """A generator that is dropped ends its block, as it would without one."""
    generator = steps(shop, connection, 1)
    next(generator)
    next(generator)
    del generator

    assert sent_to(connection) == [1]
    with pytest.raises(Exception, match="no transaction to join"):
        shop.add.delay(2, 0)
