"""Whatever interrupts an INSERT, no transaction commits without the messages sent in it.

Interrupts are raised where psycopg waits for the server, at each of these places in turn.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from select import select
from typing import Any

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from gevent import Timeout  # type: ignore[import-untyped]  # ships no types
from psycopg.waiting import Ready, Wait
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, set_wait_callback
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from tests.producer.conftest import Connection, Shop, Stored
from tests.producer.drivers import DJANGO, SYNCHRONOUS, Driver, opened
from tests.producer.soaking import finished

INTERRUPTS = [KeyboardInterrupt, SystemExit, GeneratorExit, Timeout, SoftTimeLimitExceeded]


class Interrupter:
    """Stands in for psycopg's `wait()`, and once raises what it is told to instead of waiting."""

    def __init__(self) -> None:
        self._left = 0
        self._error: BaseException = KeyboardInterrupt()

    def interrupt(self, position: int, error: BaseException) -> None:
        """Raise `error` the `position`-th time from now on that somebody waits."""
        self._left, self._error = position, error

    def raised(self) -> bool:
        """Tell whether it came to that; if not, it will not."""
        found, self._left = self._left <= 0, 0
        return found

    def wait(self, operation: Any, fileno: int, **_: Any) -> Any:
        """Run an operation of psycopg to its end."""
        ready: Any = None
        try:
            while True:
                wanted = operation.send(ready)
                readable, writable = self._wait(
                    fileno, reads=bool(wanted & Wait.R), writes=bool(wanted & Wait.W)
                )
                ready = (Ready.R if readable else 0) | (Ready.W if writable else 0)
        except StopIteration as end:
            return end.value

    def wait_callback(self, connection: Any) -> None:
        """Do the same for psycopg2, as libraries of greenlets do it."""
        while (wanted := connection.poll()) != POLL_OK:
            self._wait(connection.fileno(), reads=wanted == POLL_READ, writes=wanted == POLL_WRITE)

    def _wait(self, fileno: int, *, reads: bool, writes: bool) -> tuple[bool, bool]:
        self._left -= 1
        if self._left == 0:
            raise self._error
        readable, writable, _ = select([fileno] if reads else [], [fileno] if writes else [], [])
        return bool(readable), bool(writable)


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interrupter]:
    """In force, and told nothing yet."""
    interrupter = Interrupter()
    monkeypatch.setattr("psycopg.waiting.wait", interrupter.wait)
    set_wait_callback(interrupter.wait_callback)
    yield interrupter
    set_wait_callback(None)


@pytest.fixture
def pool(database: str) -> Iterator[ConnectionPool[Connection]]:
    """A pool of one connection, and a table for what the messages must go with."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (n int)")
    with ConnectionPool(database, min_size=1, max_size=1) as pool:
        yield pool


def committed(stored: Stored) -> tuple[list[int], list[int]]:
    """The effects and the messages, read at one moment: a COMMIT may still be under way."""
    (row,) = stored.fetch(
        "SELECT ARRAY(SELECT n FROM effect ORDER BY n) AS effects,"
        " ARRAY(SELECT (convert_from(body, 'UTF8')::json -> 0 ->> 0)::int FROM outbox.message"
        "       ORDER BY id) AS messages"
    )
    return row.effects, row.messages


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_beside_the_commit(
    shop: Shop,
    pool: ConnectionPool[Connection],
    stored: Stored,
    interrupter: Interrupter,
    tmp_path: Path,
    interrupt: type[BaseException],
) -> None:
    """All is committed or nothing, nothing where no COMMIT was sent, and the interrupt passes."""

    def transact(connection: Connection, position: int, error: BaseException) -> None:
        with shop.app.outbox.transaction(connection):
            connection.execute("INSERT INTO effect VALUES (%s)", (position,))
            shop.add.delay(position, 0)
            interrupter.interrupt(position, error)

    unsent = 0
    for position in count(1):
        error, caught = interrupt(), None
        with pool.connection() as connection, (tmp_path / "trace").open("w+") as trace:
            connection.pgconn.trace(trace.fileno())
            try:
                transact(connection, position, error)
            except interrupt as passed:
                caught = passed
            if not connection.closed:
                connection.pgconn.untrace()
            trace.seek(0)
            sent = "COMMIT" in trace.read()
        assert caught is (error if interrupter.raised() else None)
        if caught is None:
            break
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        effects, messages = committed(stored)
        assert effects == messages
        if not sent:
            unsent += 1
            assert position not in stored.args()
    assert unsent >= 2


@pytest.mark.parametrize("interrupt", INTERRUPTS)
@pytest.mark.parametrize("driver", [*SYNCHRONOUS, DJANGO], ids=str)
def test_before_an_operation(
    request: pytest.FixtureRequest,
    shop: Shop,
    database: str,
    stored: Stored,
    interrupter: Interrupter,
    driver: Driver,
    interrupt: type[BaseException],
) -> None:
    """Where rows go out before a statement, or as they are sent, and somebody goes on to commit."""
    if driver is DJANGO:
        request.getfixturevalue("django_database")
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (n int)")

    async def attempt(position: int) -> bool:
        talk = await opened(driver, database)
        with suppress(interrupt):
            await talk.execute(f"INSERT INTO effect VALUES ({position})")
            async with talk.using(shop.app.outbox):
                shop.add.delay(position, 0)
                interrupter.interrupt(position, interrupt())
                shop.add.apply_async((position, 0), dedup_key=str(position))
                await talk.execute("SELECT 1")
        interrupted = interrupter.raised()
        with suppress(Exception):
            await talk.commit()
        await talk.close()
        return interrupted

    for position in count(1):
        interrupted = finished(attempt(position))
        effects, messages = committed(stored)
        assert messages == [n for n in effects for _ in "12"]
        if not interrupted:
            break


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Timeout, SoftTimeLimitExceeded])
@pytest.mark.parametrize("way", ["using", "transaction", "commit"])
@pytest.mark.parametrize("kind", ["Session", "Connection"])
@pytest.mark.parametrize("place", ["before", "within"])
def test_on_sqlalchemy(
    shop: Shop,
    database: str,
    stored: Stored,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    kind: str,
    way: str,
    interrupt: type[BaseException],
) -> None:
    """Nobody can commit there either, whether or not SQLAlchemy was about to execute something."""
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg2", 1))
    target: Any = Session(engine) if kind == "Session" else engine.connect()

    def interrupting(*details: Any) -> None:
        if place == "before" or "outbox" in details[2]:
            raise interrupt

    def transact() -> None:
        with getattr(shop.app.outbox, way.replace("commit", "using"))(target):
            target.execute(text("INSERT INTO effect VALUES (1)"))
            shop.add.delay(1, 0)
            if way == "commit":
                target.commit()

    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (n int)")
    with monkeypatch.context() as patched:
        if place == "before":
            patched.setattr("celery_outbox.statements.commands.insert", interrupting)
        else:
            event.listen(engine, "before_cursor_execute", interrupting)
        with pytest.raises(interrupt):
            transact()
        if place == "within":
            event.remove(engine, "before_cursor_execute", interrupting)
    with suppress(SQLAlchemyError):
        target.commit()
        target.execute(text("INSERT INTO effect VALUES (2)"))
        target.commit()
    target.close()
    engine.dispose()
    assert 1 not in committed(stored)[0]
    assert stored.args() == []
