"""An app with no broker to reach, and what its outbox holds."""

import socket
from collections.abc import Iterable, Iterator
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest
from kombu import Connection as Broker
from psycopg.rows import namedtuple_row
from psycopg.sql import SQL, Composed, Identifier

from celery_outbox import OutboxCelery
from celery_outbox.message import Filled, Message
from celery_outbox.statements import commands
from celery_outbox.statements.insert import Style, insert_alike
from servers.ports import free_port

Connection = psycopg.Connection[Any]


class Shop(NamedTuple):
    """An app and its tasks, none of which ever runs here."""

    app: OutboxCelery
    add: Any
    total: Any
    complain: Any


def make_shop(broker: str | None, **settings: Any) -> Shop:
    """Return an app configured with `settings`, and three tasks of it."""
    app = OutboxCelery("shop", broker=broker, set_as_current=False, changes=settings)

    @app.task(name="shop.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="shop.total", shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="shop.complain", shared=False)
    def complain(request: Any, error: Exception, trace: str) -> None: ...

    return Shop(app, add, total, complain)


@pytest.fixture(autouse=True)
def no_outbox_in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings come from the test alone."""
    for name in ("OUTBOX_DATABASE_URL", "OUTBOX_DATABASE_URL_FILE", "OUTBOX_SCHEMA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def trap() -> Iterator[str]:
    """The URL of a broker that fails the test when anything connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield f"amqp://guest:guest@127.0.0.1:{listener.getsockname()[1]}//"
        try:
            listener.accept()
        except BlockingIOError:
            return
        pytest.fail("something connected to the broker")


@pytest.fixture
def plain_broker() -> Iterator[str]:
    """The URL of a broker in memory, empty."""
    yield "memory://"
    with Broker("memory://") as broker:
        broker.SimpleQueue("celery").clear()


@pytest.fixture
def shop(trap: str) -> Shop:
    """An app whose broker must not be touched."""
    return make_shop(trap)


@pytest.fixture
def dead_url() -> str:
    """A broker URL where nothing listens."""
    return f"amqp://guest:guest@127.0.0.1:{free_port()}//"


class Stored:
    """Looks into the outbox through a connection of its own, so it sees what was committed."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self) -> list[Any]:
        """Every committed row, in the order of insertion."""
        return self.fetch("SELECT * FROM outbox.message ORDER BY id")

    def args(self, schema: str = "outbox") -> list[Any]:
        """The first argument of every committed task, in the order of insertion."""
        query = SQL(
            "SELECT convert_from(body, 'UTF8')::json -> 0 -> 0 FROM {}.message ORDER BY id"
        ).format(Identifier(schema))
        return [row[0] for row in self.fetch(query)]

    def fetch(self, query: LiteralString | Composed) -> list[Any]:
        """What a query returns."""
        with psycopg.connect(self._url, row_factory=namedtuple_row) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def stored(database: str) -> Stored:
    """What the test's database holds."""
    return Stored(database)


@pytest.fixture
def alike(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages were stored at a time that had been made by a pattern."""
    found: list[int] = []

    def insert(schema: str, like: Message, filled: Iterable[Filled], style: Style) -> Any:
        taken = [*filled]
        found.append(len(taken))
        return insert_alike(schema, like, taken, style)

    monkeypatch.setattr(commands, "insert_alike", insert)
    return found
