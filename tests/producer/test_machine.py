"""Random histories: what a committed transaction was sent is stored, and nothing else is.

Threads, greenlets, asyncio tasks and generators open and end blocks on two connections in any
order, send in every way there is, and now and then all at once, between savepoints, commits and
rollbacks. A send that returned belongs to the transaction it named; a refusal is an OutboxError.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import psycopg
import pytest
from greenlet import greenlet  # type: ignore[import-untyped]  # ships no types
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from celery_outbox import AmbiguousBlock, NoTransaction, OutboxClosed, OutboxError
from tests.producer.conftest import Shop
from tests.producer.drivers import ASYNCHRONOUS, SYNCHRONOUS, Driver, Talk, opened

CONNECTIONS = st.integers(0, 1)
ACTORS = st.integers(0, 4)
BUDGET = settings(
    max_examples=8,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class History:
    """What the transaction of one connection should hold, a list for each savepoint."""

    def __init__(self) -> None:
        self.committed: set[str] = set()
        self.open: list[list[str]] = [[]]

    def sent(self, *ids: str) -> None:
        """Note what was sent now."""
        self.open[-1].extend(ids)

    def commit(self) -> None:
        """Note that all of it is stored."""
        self.committed.update(*self.open)
        self.open = [[]]

    def roll_back(self) -> None:
        """Note that none of it is."""
        self.open = [[]]

    def roll_back_to(self, savepoint: int) -> None:
        """Note that what came after a savepoint is gone, and the savepoint is not."""
        self.open[savepoint:] = [[]]

    def release(self, savepoint: int) -> None:
        """Note that a savepoint's lot is that of what was before it."""
        inside = self.open[savepoint:]
        del self.open[savepoint:]
        for ids in inside:
            self.open[-1].extend(ids)


class Actor:
    """Something with a context of its own that runs what it is told, and the blocks it opened."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Any, int]] = []

    def run(self, work: Callable[[], Any]) -> Any:
        """Run something there, and return what it returned."""
        raise NotImplementedError

    def await_(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The same for a coroutine, which awaits nothing where the driver is synchronous."""
        return self.run(lambda: _finished(work()))

    def stop(self) -> None:
        """End it."""


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a synchronous driver waits for nothing")


class Thread(Actor):
    """A thread."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = ThreadPoolExecutor(1)

    def run(self, work: Callable[[], Any]) -> Any:
        return self._pool.submit(work).result(30)

    def stop(self) -> None:
        self._pool.shutdown()


class Greenlet(Actor):
    """A greenlet of the main thread."""

    def __init__(self) -> None:
        super().__init__()
        self._greenlet = greenlet(self._work)
        self._greenlet.switch()

    def _work(self, outcome: Any = None) -> None:
        while (work := greenlet.getcurrent().parent.switch(outcome)) is not None:
            try:
                outcome = work(), None
            except BaseException as error:
                outcome = None, error

    def run(self, work: Callable[[], Any]) -> Any:
        result, error = self._greenlet.switch(work)
        if error is not None:
            raise error
        return result

    def stop(self) -> None:
        self._greenlet.switch(None)


class Iterated(Actor):
    """A generator that the main thread runs, in the context that it shares with other ones."""

    def __init__(self) -> None:
        super().__init__()
        self._generator = self._work()
        next(self._generator)

    def _work(self) -> Generator[Any, Callable[[], Any], None]:
        outcome: Any = None
        while True:
            work = yield outcome
            try:
                outcome = work(), None
            except BaseException as error:
                outcome = None, error

    def run(self, work: Callable[[], Any]) -> Any:
        result, error = self._generator.send(work)
        if error is not None:
            raise error
        return result

    def stop(self) -> None:
        self._generator.close()


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine there, as a task, from here."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def stop(self) -> None:
        """End it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Task(Actor):
    """An asyncio task."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop
        self._orders: asyncio.Queue[Any] = asyncio.Queue()
        self._done = asyncio.run_coroutine_threadsafe(self._work(), loop.loop)

    async def _work(self) -> None:
        while (order := await self._orders.get()) is not None:
            work, answer = order
            try:
                answer.set_result(await work())
            except BaseException as error:
                answer.set_exception(error)

    def await_(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        answer: Future[Any] = Future()
        self._loop.loop.call_soon_threadsafe(self._orders.put_nowait, (work, answer))
        return answer.result(30)

    def run(self, work: Callable[[], Any]) -> Any:
        async def awaited() -> Any:
            return work()

        return self.await_(awaited)

    def stop(self) -> None:
        self._loop.loop.call_soon_threadsafe(self._orders.put_nowait, None)
        self._done.result(30)


class Machine(RuleBasedStateMachine):
    """Five actors, two connections."""

    shop: Shop
    database: str
    driver: Driver

    @initialize()
    def open(self) -> None:
        """Open the connections, and start the actors."""
        self.loop = Loop()
        self.asynchronous = self.driver in ASYNCHRONOUS
        self.talks: list[Talk] = [self.loop.run(self._opened()) for _ in range(2)]
        self.histories = [History(), History()]
        self.heirs: list[tuple[contextvars.Context, list[tuple[Any, int]]]] = []
        self.refused = 0
        self.actors: list[Actor] = (
            [Task(self.loop) for _ in range(5)]
            if self.asynchronous
            else [Thread(), Greenlet(), Iterated(), Iterated(), Task(self.loop)]
        )

    async def _opened(self) -> Talk:
        return await opened(self.driver, self.database)

    def _own(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run what is the connection's own business, wherever it must run."""
        return self.loop.run(work()) if self.asynchronous else _finished(work())

    @rule(actor=ACTORS, number=CONNECTIONS)
    def enter(self, actor: int, number: int) -> None:
        """Begin a block."""
        block = self.talks[number].using(self.shop.app.outbox)
        self.actors[actor].await_(block.__aenter__)
        self.actors[actor].blocks.append((block, number))

    @precondition(lambda self: any(actor.blocks for actor in self.actors))
    @rule(data=st.data(), failed=st.booleans())
    def leave(self, data: st.DataObject, failed: bool) -> None:
        """End any block that is open, perhaps by an error."""
        actor = data.draw(st.sampled_from([actor for actor in self.actors if actor.blocks]))
        block, _ = opened_block = data.draw(st.sampled_from(actor.blocks))
        actor.blocks.remove(opened_block)
        error = KeyError("mine") if failed else None
        with suppress(KeyError):
            actor.await_(lambda: block.__aexit__(error and KeyError, error, None))

    @rule(actor=ACTORS)
    def send(self, actor: int) -> None:
        """Send in the innermost block of an actor; without one it is refused."""
        there = self.actors[actor]
        expected = self._in_force(there)
        if isinstance(expected, int):
            result = there.run(lambda: self.shop.add.delay(1, 0))
            self.histories[expected].sent(result.id)
        else:
            with pytest.raises(expected):
                there.run(lambda: self.shop.add.delay(1, 0))

    def _in_force(self, there: Actor) -> int | type[OutboxError]:
        """Return the connection whose block an actor is in, or how it is refused."""
        if there.blocks:
            return there.blocks[-1][1]
        if not isinstance(there, Iterated):
            return NoTransaction
        # Whoever runs generators is in their block, as with a fixture, if there is but one.
        others = [actor for actor in self.actors if isinstance(actor, Iterated) and actor.blocks]
        numbers = [number for actor in others for _, number in actor.blocks]
        if not numbers:
            return NoTransaction
        if len(others) == 1 or len(set(numbers)) == 1:
            return numbers[-1]
        return AmbiguousBlock

    @rule(actor=ACTORS, number=CONNECTIONS, event=st.booleans())
    def send_to(self, actor: int, number: int, event: bool) -> None:
        """Name the connection for one send."""
        target, outbox = self.talks[number].target, self.shop.app.outbox
        try:
            if event:
                sent = self.actors[actor].run(lambda: outbox.publish(target, 1, exchange="events"))
            else:
                sent = self.actors[actor].run(
                    lambda: self.shop.add.apply_async((1, 0), outbox=target).id
                )
        except OutboxError:
            assert self.asynchronous
        else:
            self.histories[number].sent(sent)

    @rule(actor=ACTORS)
    def inherit(self, actor: int) -> None:
        """Start something in an actor's context that sends later."""
        there = self.actors[actor]
        if there.blocks and not isinstance(there, Iterated):
            self.heirs.append((there.run(contextvars.copy_context), [*there.blocks]))

    @precondition(lambda self: self.heirs)
    @rule(data=st.data())
    def send_as_heir(self, data: st.DataObject) -> None:
        """It joins the block it was started in, or is told that this has ended."""
        context, blocks = data.draw(st.sampled_from(self.heirs))
        block, number = blocks[-1]
        answers: SimpleQueue[Any] = SimpleQueue()

        def send() -> None:
            try:
                answers.put(context.run(self.shop.add.delay, 1, 0).id)
            except OutboxError as error:
                answers.put(error)

        threading.Thread(target=send).start()
        answer = answers.get(timeout=30)
        if any((block, number) in actor.blocks for actor in self.actors):
            self.histories[number].sent(answer)
        else:
            assert isinstance(answer, OutboxClosed)

    @rule(number=CONNECTIONS, size=st.integers(2, 6))
    def at_once(self, number: int, size: int) -> None:
        """Send from many threads or tasks at the same moment; what is not refused counts."""
        if self.asynchronous:
            sent = self.loop.run(self._gathered(number, size))
        else:
            with ThreadPoolExecutor(size) as pool:
                sent = [*pool.map(lambda each: self._sent(number, each), range(size))]
        accepted = [each for each in sent if each is not None]
        assert len(accepted) == size or "Session" in self.driver.name
        self.histories[number].sent(*accepted)

    def _sent(self, number: int, each: int) -> str | None:
        target = self.talks[number].target
        try:
            if each % 2:
                with self.shop.app.outbox.using(target):
                    return str(self.shop.add.delay(1, 0).id)
            return str(self.shop.add.apply_async((1, 0), outbox=target).id)
        except OutboxError:
            return None

    async def _gathered(self, number: int, size: int) -> list[str | None]:
        async def send(each: int) -> str:
            async with self.talks[number].using(self.shop.app.outbox):
                if each % 2:
                    await asyncio.sleep(0)
                return str(self.shop.add.delay(1, 0).id)

        return [*await asyncio.gather(*map(send, range(size)))]

    @rule(number=CONNECTIONS)
    def work(self, number: int) -> None:
        """Run a statement of the user's own."""
        self._own(lambda: self.talks[number].execute("SELECT 1"))

    @rule(number=CONNECTIONS)
    def set_savepoint(self, number: int) -> None:
        """Begin a savepoint."""
        history = self.histories[number]
        name = f"s{len(history.open)}"
        self._own(lambda: self.talks[number].execute(f"SAVEPOINT {name}"))
        history.open.append([])

    @rule(number=CONNECTIONS, data=st.data(), back=st.booleans())
    def end_savepoint(self, number: int, data: st.DataObject, back: bool) -> None:
        """Roll back to a savepoint, or release it."""
        history = self.histories[number]
        if len(history.open) == 1:
            return
        depth = data.draw(st.integers(1, len(history.open) - 1))
        command = "ROLLBACK TO" if back else "RELEASE"
        self._own(lambda: self.talks[number].execute(f"{command} s{depth}"))
        (history.roll_back_to if back else history.release)(depth)

    @rule(number=CONNECTIONS, committed=st.booleans())
    def end(self, number: int, committed: bool) -> None:
        """Commit or roll back."""
        talk, history = self.talks[number], self.histories[number]
        self._own(talk.commit if committed else talk.rollback)
        (history.commit if committed else history.roll_back)()

    def teardown(self) -> None:
        """Compare what is stored with what was committed."""
        if not hasattr(self, "talks"):
            return
        for talk in self.talks:
            self._own(talk.close)
        for actor in self.actors:
            for block, _ in actor.blocks:
                with suppress(OutboxError):  # its connection was closed
                    actor.await_(partial(block.__aexit__, None, None, None))
            actor.stop()
        self.loop.stop()
        with psycopg.connect(self.database) as connection:
            rows = connection.execute("DELETE FROM outbox.message RETURNING message_id").fetchall()
        expected = set().union(*(history.committed for history in self.histories))
        stored = [message_id for (message_id,) in rows]
        assert len(stored) == len(set(stored))
        assert set(stored) == expected


@pytest.mark.parametrize("driver", [*SYNCHRONOUS, *ASYNCHRONOUS], ids=str)
def test_random_histories(shop: Shop, database: str, driver: Driver) -> None:
    """Committed is stored, rolled back is absent."""
    place = {"shop": shop, "database": database, "driver": driver}
    run_state_machine_as_test(type("Machine", (Machine,), place), settings=BUDGET)
