"""A task that is cancelled, wherever it waits, commits nothing without its messages."""

import asyncio
from collections.abc import Coroutine, Generator
from contextlib import suppress
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.producer.conftest import Shop, Stored
from tests.producer.drivers import ASYNCHRONOUS, Driver, opened


class Watched:
    """Awaits a coroutine; once told to, cancels its task the n-th time that it has to wait."""

    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._left = 0

    def cancel(self, position: int) -> None:
        """Cancel the `position`-th time from now on."""
        self._left = position

    def __await__(self) -> Generator[Any, Any, None]:
        go_on, given = self._work.send, None
        while True:
            try:
                wanted = go_on(given)
            except StopIteration:
                return
            self._left -= 1
            if self._left == 0:
                task = asyncio.current_task()
                assert task
                task.cancel()
            try:
                go_on, given = self._work.send, (yield wanted)
            except BaseException as error:
                go_on, given = self._work.throw, error


@pytest.mark.parametrize("way", ["using", "transaction"])
@pytest.mark.parametrize("driver", ASYNCHRONOUS, ids=str)
def test_wherever_it_waits(
    shop: Shop, database: str, stored: Stored, driver: Driver, way: str
) -> None:
    """All is committed or nothing, also where somebody goes on and commits."""

    async def attempt(position: int) -> bool:
        talk = await opened(driver, database)

        async def work() -> None:
            async with getattr(talk, way)(shop.app.outbox):
                await talk.execute(f"INSERT INTO effect VALUES ({position})")
                shop.add.delay(position, 0)
                watched.cancel(position)
                shop.add.apply_async((position, 0), dedup_key=str(position))

        watched, cancelled = Watched(work()), False
        try:
            await watched
        except asyncio.CancelledError:
            cancelled = True
            asyncio.current_task().uncancel()  # type: ignore[union-attr]  # it is one
        with suppress(Exception):
            await talk.commit()
        await talk.close()
        return cancelled

    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (n int)")
    for position in count(1):
        cancelled = asyncio.run(attempt(position))
        effects = [row.n for row in stored.fetch("SELECT n FROM effect ORDER BY n")]
        assert sorted(stored.args()) == [n for n in effects for _ in "12"]
        if not cancelled:
            break
    assert position > 2
