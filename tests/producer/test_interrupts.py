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
from psycopg_pool import ConnectionPool

from tests.producer.conftest import Connection, Shop, Stored

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
        """Run the operation to its end."""
        ready: Any = None
        try:
            while True:
                wanted = operation.send(ready)
                self._left -= 1
                if self._left == 0:
                    raise self._error
                reads = [fileno] if wanted & Wait.R else []
                writes = [fileno] if wanted & Wait.W else []
                readable, writable = select(reads, writes, [])[:2]
                ready = (Ready.R if readable else 0) | (Ready.W if writable else 0)
        except StopIteration as end:
            return end.value


@pytest.fixture
def interrupter(monkeypatch: pytest.MonkeyPatch) -> Interrupter:
    """In force, and told nothing yet."""
    interrupter = Interrupter()
    monkeypatch.setattr("psycopg.waiting.wait", interrupter.wait)
    return interrupter


@pytest.fixture
def pool(database: str) -> Iterator[ConnectionPool[Connection]]:
    """A pool of one connection, and a table for what the messages must go with."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE effect (n int)")
    with ConnectionPool(database, min_size=1, max_size=1) as pool:
        yield pool


def effects(stored: Stored) -> list[int]:
    """What was committed beside the messages."""
    return [row.n for row in stored.fetch("SELECT n FROM effect ORDER BY n")]


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
        assert effects(stored) == stored.args()
        if not sent:
            unsent += 1
            assert position not in stored.args()
    assert unsent >= 2


@pytest.mark.parametrize("interrupt", INTERRUPTS)
def test_before_an_operation(
    shop: Shop,
    pool: ConnectionPool[Connection],
    stored: Stored,
    interrupter: Interrupter,
    interrupt: type[BaseException],
) -> None:
    """The same where rows go out before a statement, and somebody would commit all the same."""

    def transact(connection: Connection, position: int) -> None:
        with shop.app.outbox.using(connection):
            connection.execute("INSERT INTO effect VALUES (%s)", (position,))
            shop.add.delay(position, 0)
            interrupter.interrupt(position, interrupt())
            shop.add.apply_async((position, 0), dedup_key=str(position))
            connection.execute("SELECT 1")

    for position in count(1):
        with suppress(psycopg.Error), pool.connection() as connection:  # which commits
            with suppress(interrupt):
                transact(connection, position)
            interrupted = interrupter.raised()
        assert stored.args() == [n for n in effects(stored) for _ in "12"]
        if not interrupted:
            break
