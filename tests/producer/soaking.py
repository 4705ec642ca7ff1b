"""Random sends from many threads, greenlets or coroutines at once, and the sums they come to.

Half of the senders share one connection, around savepoints that are rolled back or released; the
others borrow connections from a pool and end their transactions themselves. As a
program, `python -m tests.producer.soaking URL DRIVER SENDS SEED`, the senders are greenlets, and
every wait of the process is gevent's.
"""

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

if __name__ == "__main__":
    from gevent import monkey  # type: ignore[import-untyped]  # ships no types

    monkey.patch_all()

from celery_outbox import OutboxError
from tests.producer.conftest import Shop, make_shop
from tests.producer.drivers import ASYNCHRONOUS, DJANGO, SYNCHRONOUS, Driver, Talk, opened

#: Sends of one job, at most, and connections in the pool.
PORTION, POOLED = 10, 8
Job = Callable[[], Coroutine[Any, Any, None]]


@dataclass
class Sums:
    """What became of the sends."""

    committed: set[str] = field(default_factory=set)
    rolled_back: int = 0
    refused: int = 0

    @property
    def sends(self) -> int:
        """How many there were."""
        return len(self.committed) + self.rolled_back + self.refused

    def count(self, ids: list[str], committed: bool) -> None:
        """Count what a transaction or savepoint held."""
        if committed:
            self.committed.update(ids)
        else:
            self.rolled_back += len(ids)


async def send(shop: Shop, talk: Talk, chance: random.Random, sums: Sums) -> list[str]:
    """Send some tasks, in every way; the ids of those that were not refused."""
    sent: list[str] = []
    for _ in range(chance.randint(1, PORTION)):
        way = chance.random()
        try:
            if way < 0.4:
                sent.append(shop.add.apply_async((1, 0), outbox=talk.target).id)
            elif way < 0.5:
                sent.append(shop.app.outbox.publish(talk.target, 1, exchange="events"))
            else:
                async with talk.using(shop.app.outbox):
                    sent.append(shop.add.delay(1, 0).id)
        except OutboxError:
            sums.refused += 1
    return sent


async def transact(shop: Shop, talk: Talk, chance: random.Random, sums: Sums) -> None:
    """Send in a transaction of one's own, with a savepoint inside, and end it."""
    await talk.execute("SELECT 1")
    kept = await send(shop, talk, chance, sums)
    back = chance.random() < 0.5
    with suppress(KeyError):
        async with talk.savepoint():
            inside = await send(shop, talk, chance, sums)
            if back:
                raise KeyError
    committed = chance.random() < 0.7
    await (talk.commit if committed else talk.rollback)()
    sums.count(inside, committed and not back)
    sums.count(kept, committed)


async def share(
    shop: Shop,
    talk: Talk,
    chance: random.Random,
    sums: Sums,
    together: Callable[[list[Job]], Awaitable[None]],
    others: list[Job],
    senders: int,
) -> None:
    """Have many send on one connection, twice with a savepoint between, and end the transaction."""
    halves: list[list[str]] = []
    for part in range(2):
        await talk.execute("SELECT 1" if part == 0 else "SAVEPOINT half")
        found: list[str] = []

        async def job(seed: int, found: list[str] = found) -> None:
            found += await send(shop, talk, random.Random(seed), sums)

        seeds = [chance.getrandbits(64) for _ in range(senders)]
        await together([*(lambda seed=seed: job(seed) for seed in seeds), *others])
        halves.append(found)
    back = chance.random() < 0.5
    await talk.execute("ROLLBACK TO half" if back else "RELEASE half")
    committed = chance.random() < 0.7
    await (talk.commit if committed else talk.rollback)()
    sums.count(halves[1], committed and not back)
    sums.count(halves[0], committed)


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a synchronous driver waits for nothing")


def soak(
    driver: Driver,
    url: str,
    sends: int,
    seed: int,
    senders: int,
    all_of: Callable[[list[Callable[[], None]]], object],
) -> Sums:
    """Soak a synchronous driver; `all_of` runs functions at once and returns when all have."""
    shop, chance, sums = make_shop(None), random.Random(seed), Sums()
    pool: Queue[Talk] = Queue()

    async def borrow(seed: int) -> None:
        talk = pool.get() if driver.shared else driver.open(url)
        try:
            await transact(shop, talk, random.Random(seed), sums)
        finally:
            if driver.shared:
                pool.put(talk)
            else:
                await talk.close()

    async def together(jobs: list[Job]) -> None:
        all_of([lambda job=job: finished(job()) for job in jobs])  # type: ignore[misc]  # jobs' own

    if driver.shared:
        for _ in range(POOLED):
            pool.put(driver.open(url))
    talks = [driver.open(url)] if driver.shared else []
    while sums.sends < sends:
        seeds = [chance.getrandbits(64) for _ in range(senders // 2)]
        others: list[Job] = [lambda seed=seed: borrow(seed) for seed in seeds]  # type: ignore[misc]
        if not talks:
            finished(together(others))
        for talk in talks:
            finished(share(shop, talk, chance, sums, together, others, senders - len(others)))
    for talk in [*talks, *(pool.get() for _ in range(pool.qsize()))]:
        finished(talk.close())
    return sums


async def asoak(driver: Driver, url: str, sends: int, seed: int, senders: int) -> Sums:
    """Soak an asynchronous driver with tasks."""
    shop, chance, sums = make_shop(None), random.Random(seed), Sums()
    pool: asyncio.Queue[Talk] = asyncio.Queue()

    async def borrow(seed: int) -> None:
        talk = await pool.get()
        try:
            await transact(shop, talk, random.Random(seed), sums)
        finally:
            pool.put_nowait(talk)

    async def together(jobs: list[Job]) -> None:
        await asyncio.gather(*(job() for job in jobs))

    for _ in range(POOLED):
        pool.put_nowait(await opened(driver, url))
    talk = await opened(driver, url)
    while sums.sends < sends:
        seeds = [chance.getrandbits(64) for _ in range(senders // 2)]
        others: list[Job] = [lambda seed=seed: borrow(seed) for seed in seeds]  # type: ignore[misc]
        await share(shop, talk, chance, sums, together, others, senders - len(others))
    await talk.close()
    while not pool.empty():
        await pool.get_nowait().close()
    return sums


def by_name(name: str) -> Driver:
    """Return the driver of a name."""
    return next(each for each in (*SYNCHRONOUS, *ASYNCHRONOUS, DJANGO) if each.name == name)


def main(url: str, name: str, sends: str, seed: str) -> None:
    """Soak with two hundred greenlets, and print the sums."""
    from gevent.pool import Pool  # type: ignore[import-untyped]  # ships no types

    greenlets = Pool(200)

    def all_of(functions: list[Callable[[], None]]) -> None:
        for each in [greenlets.spawn(function) for function in functions]:
            each.get()

    sums = soak(by_name(name), url, int(sends), int(seed), 200, all_of)
    print(json.dumps([sorted(sums.committed), sums.rolled_back, sums.refused]))


if __name__ == "__main__":
    main(*sys.argv[1:])
