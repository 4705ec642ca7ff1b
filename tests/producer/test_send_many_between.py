"""What whoever yields does between two calls has its place between the two messages.

`send_many` stores what a loop of `apply_async` would have stored: savepoints, commits and other
sends among the calls included.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from celery_outbox import OutboxError, OutboxNotReady, UnusableTarget
from celery_outbox.statements import commands
from tests.producer.conftest import Connection, Shop, Stored, make_shop
from tests.producer.drivers import DJANGO, SYNCHRONOUS, Driver, Talk, opened
from tests.producer.soaking import finished

Call = tuple[Any, ...]
Send = Callable[[Talk, Iterator[Call]], None]


@pytest.fixture(params=[*SYNCHRONOUS, DJANGO], ids=str)
def talk(request: pytest.FixtureRequest, database: str) -> Iterator[Talk]:
    """One that is open, of each kind that can be used between two calls."""
    driver: Driver = request.param
    if driver is DJANGO:
        request.getfixturevalue("django_database")
    found: Talk = finished(opened(driver, database))
    found.execute_now("SELECT 1")
    yield found
    finished(found.close())


@pytest.fixture(params=["in a block", "with outbox="])
def send(request: pytest.FixtureRequest, shop: Shop) -> Send:
    """Send many, either way."""

    def in_a_block(talk: Talk, calls: Iterator[Call]) -> None:
        with shop.app.outbox.using(talk.target):
            shop.app.outbox.send_many(shop.add, calls)

    def named(talk: Talk, calls: Iterator[Call]) -> None:
        shop.app.outbox.send_many(shop.add, calls, outbox=talk.target)

    return in_a_block if request.param == "in a block" else named


def test_savepoints(talk: Talk, send: Send, stored: Stored) -> None:
    """Take along what was yielded since they began, and nothing else."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        talk.execute_now("SAVEPOINT one")
        yield from ((number, 0) for number in range(5, 10))
        talk.execute_now("ROLLBACK TO one")
        yield from ((number, 0) for number in range(10, 15))
        talk.execute_now("SAVEPOINT two")
        yield (15, 0)
        talk.execute_now("RELEASE two")
        yield (16, 0)

    send(talk, calls())
    finished(talk.commit())
    assert stored.args() == [*range(5), *range(10, 17)]


def test_blocks(talk: Talk, send: Send, shop: Shop, stored: Stored) -> None:
    """Of our own that are savepoints are as exact."""

    def calls() -> Iterator[Call]:
        for chunk in range(0, 40, 5):
            with suppress(KeyError), shop.app.outbox.transaction(talk.target):
                yield from ((number, 0) for number in range(chunk, chunk + 5))
                if chunk % 10:
                    raise KeyError

    send(talk, calls())
    finished(talk.commit())
    assert stored.args() == [number for number in range(40) if number % 10 < 5]


def test_transactions(talk: Talk, send: Send, stored: Stored) -> None:
    """Each has what was yielded in it."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        finished(talk.commit())
        assert stored.args() == [*range(5)]
        talk.execute_now("SELECT 1")
        yield from ((number, 0) for number in range(5, 10))
        finished(talk.rollback())
        talk.execute_now("SELECT 1")
        yield from ((number, 0) for number in range(10, 15))

    send(talk, calls())
    finished(talk.commit())
    assert stored.args() == [*range(5), *range(10, 15)]


def test_other_sends(talk: Talk, send: Send, shop: Shop, stored: Stored) -> None:
    """Keep their place, those of another send_many among them."""

    def calls() -> Iterator[Call]:
        for number in range(0, 40, 10):
            yield number, 0
            shop.add.apply_async((number + 1, 0), outbox=talk.target)
            more = [(number + each, 0) for each in range(2, 10)]
            shop.app.outbox.send_many(shop.add, more, outbox=talk.target)

    send(talk, calls())
    finished(talk.commit())
    assert stored.args() == [*range(40)]


def test_what_the_connection_is_told(talk: Talk, send: Send, stored: Stored) -> None:
    """Sees the messages yielded before it, in the same transaction."""
    seen = []

    def calls() -> Iterator[Call]:
        for number in range(6):
            seen.append(talk.execute_now("SELECT count(*) FROM outbox.message"))
            yield number, 0

    send(talk, calls())
    finished(talk.rollback())
    assert (seen, stored.args()) == ([*range(6)], [])


def test_an_error_of_whoever_yields(talk: Talk, send: Send, stored: Stored) -> None:
    """Comes out as it is, of any kind, and what was yielded before is in the transaction."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        send(talk, calls())
    finished(talk.commit())
    assert (stored.args(), getattr(raised.value, "__notes__", [])) == ([*range(5)], [])


def test_a_transaction_that_fails(talk: Talk, send: Send, stored: Stored) -> None:
    """While somebody yields: theirs is the error that comes out, and nothing is stored."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        talk.execute_now("SELECT 1 / 0")

    with pytest.raises(Exception, match="division by zero"):
        send(talk, calls())
    finished(talk.rollback())
    assert stored.rows() == []


def test_a_failure_that_whoever_yields_hides(talk: Talk, send: Send, stored: Stored) -> None:
    """The next message is refused, as by a loop: the transaction can only be rolled back."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        with suppress(Exception):
            talk.execute_now("SELECT 1 / 0")
        yield from ((number, 0) for number in range(5, 10))

    with pytest.raises(OutboxError):
        send(talk, calls())
    finished(talk.rollback())
    assert stored.rows() == []


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    """SQLAlchemy's, on psycopg."""
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    yield engine
    engine.dispose()


def test_a_session_without_a_connection(shop: Shop, engine: Engine, stored: Stored) -> None:
    """Begins its savepoints where they were begun, and its transactions as well."""

    def calls(session: Session) -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        with suppress(KeyError), session.begin_nested():
            yield from ((number, 0) for number in range(5, 10))
            raise KeyError
        yield from ((number, 0) for number in range(10, 15))
        session.commit()
        yield from ((number, 0) for number in range(15, 20))
        session.rollback()
        with session.begin_nested():
            yield from ((number, 0) for number in range(20, 25))

    with Session(engine) as session, shop.app.outbox.using(session):
        shop.app.outbox.send_many(shop.add, calls(session))
        session.commit()
    assert stored.args() == [*range(5), *range(10, 15), *range(20, 25)]


def test_a_session_that_is_replaced(shop: Shop, engine: Engine, stored: Stored) -> None:
    """Where outbox= names a registry, the one of the moment is joined."""
    sessions = scoped_session(sessionmaker(engine))

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        sessions.commit()
        sessions.remove()
        yield from ((number, 0) for number in range(5, 10))

    shop.app.outbox.send_many(shop.add, calls(), outbox=sessions)
    sessions.commit()
    sessions.remove()
    assert stored.args() == [*range(10)]


def test_within_a_copy(
    shop: Shop, connection: Connection, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else can run on the connection: messages wait for its end."""
    monkeypatch.setattr(commands, "PORTION", 7)

    def calls() -> Iterator[Call]:
        query = "COPY (SELECT generate_series(0, 99)) TO STDOUT"
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(["int4"])
            yield from ((number, 0) for (number,) in copy.rows())

    with shop.app.outbox.using(connection):
        shop.app.outbox.send_many(shop.add, calls())
    connection.commit()
    assert stored.args() == [*range(100)]


def test_in_a_pipeline(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Messages go among the statements."""

    def calls() -> Iterator[Call]:
        for number in range(100):
            if number % 10 == 0:
                connection.execute("SELECT 1")
            yield number, 0

    with shop.app.outbox.transaction(connection), connection.pipeline():
        shop.app.outbox.send_many(shop.add, calls())
    assert stored.args() == [*range(100)]


def test_tasks_of_asyncio(shop: Shop, database: str, stored: Stored) -> None:
    """That share a connection lose nothing, and each keeps its order."""

    async def send(connection: psycopg.AsyncConnection[Any], number: int) -> None:
        async with shop.app.outbox.using(connection):
            for start in range(number * 1000, number * 1000 + 300, 100):
                shop.app.outbox.send_many(shop.add, ((start + each, 0) for each in range(100)))
                await connection.execute("SELECT 1")

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            await asyncio.gather(*(send(connection, number) for number in range(4)))

    asyncio.run(main())
    found = stored.args()
    assert len(found) == 1200
    for number in range(4):
        mine = [each for each in found if each // 1000 == number]
        assert mine == [*range(number * 1000, number * 1000 + 300)]


def test_the_connection_is_closed(shop: Shop, connection: Connection, stored: Stored) -> None:
    """While somebody yields: it is told, with or without a block."""

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        connection.close()
        yield (5, 0)

    with pytest.raises(UnusableTarget, match="closed"):
        shop.app.outbox.send_many(shop.add, calls(), outbox=connection)
    assert stored.rows() == []


def test_without_a_transaction(trap: str, database: str, stored: Stored) -> None:
    """Other sends keep their place, and an error takes nothing along."""
    shop = make_shop(trap, outbox_database_url=database)

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        shop.add.delay(5, 0)
        yield from ((number, 0) for number in range(6, 10))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as raised:
        shop.app.outbox.send_many(shop.add, calls())
    assert (stored.args(), getattr(raised.value, "__notes__", [])) == ([*range(10)], [])


def test_a_failure_beside_an_error(
    trap: str, database: str, stored: Stored, connection: Connection
) -> None:
    """Whoever yields is told of theirs, with a note that what was yielded is not stored."""
    shop = make_shop(trap, outbox_database_url=database)

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        connection.execute("ALTER TABLE outbox.message RENAME TO gone")
        connection.commit()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as raised:
        shop.app.outbox.send_many(shop.add, calls())
    (note,) = raised.value.__notes__
    assert "what send_many() had sent before" in note
    assert "its table `message` does not exist" in note


def test_a_failure_that_another_send_meets(
    trap: str, database: str, connection: Connection
) -> None:
    """Comes out in the end, although whoever yields has hidden it."""
    shop = make_shop(trap, outbox_database_url=database)

    def calls() -> Iterator[Call]:
        yield from ((number, 0) for number in range(5))
        connection.execute("ALTER TABLE outbox.message RENAME TO gone")
        connection.commit()
        with suppress(OutboxNotReady):
            shop.add.delay(5, 0)
        connection.execute("ALTER TABLE outbox.gone RENAME TO message")
        connection.commit()

    with pytest.raises(OutboxNotReady):
        shop.app.outbox.send_many(shop.add, calls())
