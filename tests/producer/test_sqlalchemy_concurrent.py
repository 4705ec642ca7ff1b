"""Threads and tasks that share a Session or Connection of SQLAlchemy lose nothing either."""

import asyncio
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any
from weakref import ref

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session, SessionTransaction

from celery_outbox import OutboxError, UnusableTarget
from outbox_migrations import upgrade
from tests.producer.conftest import Shop, Stored, make_shop

KINDS: dict[str, Callable[[Engine], Any]] = {
    "Session": Session,
    "Connection": lambda engine: engine.connect(),
}


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, database: str) -> Iterator[Engine]:
    """An engine on the test's database, with either driver."""
    engine = create_engine(database.replace("postgresql", f"postgresql+{request.param}", 1))
    yield engine
    engine.dispose()


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Any]:
    """A session or connection that has done nothing yet."""
    target = KINDS[request.param](engine)
    yield target
    target.close()


@pytest.fixture(params=["psycopg", "asyncpg"])
def async_engine(request: pytest.FixtureRequest, database: str) -> AsyncEngine:
    """An engine on the test's database, with either driver, to be used in one event loop."""
    return create_async_engine(database.replace("postgresql", f"postgresql+{request.param}", 1))


def sender(shop: Shop, target: Any, accepted: list[int], way: str) -> Callable[[int], None]:
    """Return what sends a number on `target`, and notes that it was not refused."""

    def send(number: int) -> None:
        try:
            if way == "outbox=":
                shop.add.apply_async((number, 0), outbox=target)
            else:
                with shop.app.outbox.using(target):
                    shop.add.delay(number, 0)
        except OutboxError:
            return
        accepted.append(number)

    return send


@pytest.mark.parametrize("way", ["outbox=", "using"])
@pytest.mark.parametrize("fresh", [True, False], ids=["first", "later"])
def test_threads(shop: Shop, target: Any, stored: Stored, way: str, fresh: bool) -> None:
    """What four threads send at the same moment is committed, also as the first thing it does."""
    accepted: list[int] = []
    send = sender(shop, target, accepted, way)
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, 200, 4):
            if not fresh:
                target.execute(text("SELECT 1"))
            [*pool.map(send, range(start, start + 4))]
            target.commit()

    assert sorted(stored.args()) == sorted(accepted)
    assert len(accepted) > 190


class Slow(Session):
    """Begins its transaction when it is told to; notes who begins, and who found none begun."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.begun: list[int] = []
        self.missed: SimpleQueue[int] = SimpleQueue()
        self.beginning, self.go_on = threading.Event(), threading.Event()

    def in_transaction(self) -> bool:
        found = super().in_transaction()
        if not found:
            self.missed.put(threading.get_ident())
        return found

    def begin(self, nested: bool = False) -> SessionTransaction:
        self.begun.append(threading.get_ident())
        self.beginning.set()
        assert self.go_on.wait(30)
        return super().begin(nested)


@pytest.mark.parametrize("engine", ["psycopg2"], indirect=True)
class TestTheFirstSend:
    """It begins a transaction, as any statement does; what listens to that may take its time."""

    def test_of_two_threads(self, shop: Shop, engine: Engine, stored: Stored) -> None:
        """Of two that began at once a Session would forget one, with all that was sent in it."""
        accepted: list[int] = []
        with Slow(engine) as session, ThreadPoolExecutor(2) as pool:
            send = sender(shop, session, accepted, "using")
            sends = [pool.submit(send, 0)]
            assert session.beginning.wait(30)
            sends.append(pool.submit(send, 1))
            while session.missed.get(timeout=30) == session.begun[0]:
                pass  # until the other has found none either, and would begin one
            session.go_on.set()
            for sent in sends:
                sent.result(30)
            session.commit()

        assert len(session.begun) == 1
        assert sorted(stored.args()) == sorted(accepted) == [0, 1]

    def test_in_another_session(self, shop: Shop, engine: Engine, stored: Stored) -> None:
        """Does not wait for it."""
        accepted: list[int] = []
        with Slow(engine) as slow, Session(engine) as session, ThreadPoolExecutor(2) as pool:
            first = pool.submit(sender(shop, slow, accepted, "using"), 0)
            assert slow.beginning.wait(30)
            try:
                pool.submit(sender(shop, session, accepted, "using"), 1).result(30)
                session.commit()
                assert stored.args() == [1]
            finally:
                slow.go_on.set()
            first.result(30)
            slow.commit()

        assert stored.args() == [1, 0]

    def test_refused(
        self, shop: Shop, engine: Engine, stored: Stored, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where it takes too long, another thread's send is refused rather than kept waiting."""
        monkeypatch.setattr("celery_outbox.targets.sqlalchemy.MAX_BEGINNING", 0.01)
        with Slow(engine) as session, ThreadPoolExecutor(1) as pool:
            first = pool.submit(sender(shop, session, [], "using"), 0)
            assert session.beginning.wait(30)
            with pytest.raises(UnusableTarget, match="another thread or task is at work"):
                shop.add.apply_async((1, 0), outbox=session)
            session.go_on.set()
            first.result(30)
            session.commit()

        assert stored.args() == [0]


def test_threads_and_savepoints(shop: Shop, target: Any, stored: Stored) -> None:
    """A savepoint takes along what threads sent inside, and a rollback all of it."""
    accepted: list[int] = []
    send = sender(shop, target, accepted, "outbox=")
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, 120, 12):
            target.execute(text("SELECT 1"))
            [*pool.map(send, range(start, start + 4))]
            with suppress(KeyError), target.begin_nested():
                [*pool.map(send, range(start + 4, start + 8))]
                raise KeyError
            with target.begin_nested():
                [*pool.map(send, range(start + 8, start + 12))]
            if start % 24:
                target.rollback()
            else:
                target.commit()

    kept = [start + step for start in range(0, 120, 24) for step in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert sorted(stored.args()) == sorted(set(kept) & set(accepted))


def test_a_commit_waits_for_what_another_thread_inserts(
    shop: Shop, engine: Engine, stored: Stored
) -> None:
    """A task whose send has returned is in the transaction even if another thread inserts it."""
    with engine.connect() as connection:
        started, go_on = threading.Event(), threading.Event()

        def slow(_connection: Any, _cursor: Any, query: str, *_: Any) -> None:
            if "INSERT" in query:
                started.set()
                go_on.wait(10)

        connection.execute(text("SELECT 1"))
        with shop.app.outbox.using(connection):
            shop.add.delay(1, 0)
            event.listen(engine, "before_cursor_execute", slow)
            inserting = threading.Thread(
                target=shop.add.apply_async, args=((2, 0),), kwargs={"outbox": connection}
            )
            inserting.start()
            started.wait(10)
            committing = threading.Thread(target=connection.commit)
            committing.start()
            committing.join(0.1)
            go_on.set()
            inserting.join()
            committing.join()

    assert stored.args() == [1, 2]


def test_within_a_copy_of_the_driver(shop: Shop, database: str, stored: Stored) -> None:
    """Psycopg holds its lock then: the row goes out with what SQLAlchemy does next."""
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    with Session(engine) as session:
        driver: Any = session.connection().connection.driver_connection
        for _ in driver.cursor().stream("SELECT 1"):
            shop.add.apply_async((1, 0), outbox=session)
            with shop.app.outbox.using(session):
                shop.add.delay(2, 0)
        session.commit()

    assert stored.args() == [1, 2]


@pytest.mark.parametrize("begun", [True, False], ids=["begun", "fresh"])
def test_gathered_blocks(
    shop: Shop, async_engine: AsyncEngine, stored: Stored, begun: bool
) -> None:
    """Ten blocks at a time on one AsyncSession."""

    async def main() -> None:
        async with AsyncSession(async_engine) as session:

            async def send(number: int) -> None:
                async with shop.app.outbox.using(session):
                    shop.add.delay(number, 0)
                    if number % 2:
                        await asyncio.sleep(0)
                    shop.add.apply_async((number, 0), outbox=session)

            for start in range(0, 50, 10):
                if begun:
                    await session.execute(text("SELECT 1"))
                await asyncio.gather(*map(send, range(start, start + 10)))
                await session.commit()
        await async_engine.dispose()

    asyncio.run(main())
    assert sorted(stored.args()) == sorted([*range(50)] * 2)


def test_two_apps_on_one_session(shop: Shop, target: Any, database: str, stored: Stored) -> None:
    """Each row goes to the outbox of its own app."""
    upgrade(database, schema="mine", component="outbox")
    mine = make_shop(None, outbox_schema="mine")
    with shop.app.outbox.using(target), mine.app.outbox.using(target):
        mine.add.delay(11, 0)
        shop.add.apply_async((1, 0), outbox=target)
        mine.add.delay(12, 0)
        mine.add.delay(13, 0)
    shop.add.apply_async((2, 0), outbox=target)
    target.commit()

    assert stored.args() == [1, 2]
    assert stored.args("mine") == [11, 12, 13]


class TestNothingIsKeptAlive:
    """A session that was sent on ends with its last reference, whatever it did or did not do."""

    @pytest.mark.parametrize("end", ["commit", "rollback", "close", "nothing"])
    def test_session(self, shop: Shop, engine: Engine, end: str) -> None:
        """Of a hundred requests that send first no session is left."""
        sessions = []
        for number in range(100):
            session = Session(engine)
            with shop.app.outbox.using(session):
                shop.add.delay(number, 0)
                if end == "nothing":
                    session.close()
            if end != "nothing":
                getattr(session, end)()
            session.close()
            sessions.append(ref(session))
            del session
        gc.collect()

        assert [session for session in sessions if session() is not None] == []

    def test_a_session_without_a_connection(self, shop: Shop, database: str) -> None:
        """Also where it never got a connection, as on asyncio, and nobody closed it."""
        engine = create_async_engine(database.replace("postgresql", "postgresql+psycopg", 1))
        sessions: list[ref[Any]] = []
        for number in range(100):
            session = AsyncSession(engine)
            shop.add.apply_async((number, 0), outbox=session)
            sessions += [ref(session), ref(session.sync_session)]
            del session
        gc.collect()

        assert [session for session in sessions if session() is not None] == []


class TestClosedWithoutACommit:
    """What a session takes along when it is closed is told in the log, unless it was meant."""

    def test_after_a_commit(
        self, shop: Shop, engine: Engine, stored: Stored, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A send after the commit, the usual way to lose one, is named."""
        with Session(engine) as session, shop.app.outbox.using(session):
            shop.add.delay(1, 0)
            session.commit()
            shop.add.delay(2, 0)

        assert stored.args() == [1]
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "shop.add: sent in a transaction" in record.getMessage()

    def test_quiet(self, shop: Shop, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        """A commit, a rollback and an error say what was meant."""
        for end in ("commit", "rollback", "error"):
            with suppress(KeyError), Session(engine) as session:
                shop.add.apply_async((1, 0), outbox=session)
                with session.begin_nested():
                    shop.add.apply_async((2, 0), outbox=session)
                if end == "error":
                    raise KeyError
                getattr(session, end)()

        assert caplog.records == []

    def test_on_asyncio(
        self, shop: Shop, async_engine: AsyncEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The same there; an error that passed the block is known as one."""

        async def main() -> None:
            async with AsyncSession(async_engine) as session, shop.app.outbox.using(session):
                shop.add.delay(1, 0)
            assert len(caplog.records) == 1
            with suppress(KeyError):
                async with AsyncSession(async_engine) as session, shop.app.outbox.using(session):
                    shop.add.delay(1, 0)
                    raise KeyError
            await async_engine.dispose()

        asyncio.run(main())
        assert len(caplog.records) == 1
