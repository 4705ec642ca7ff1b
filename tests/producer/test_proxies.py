"""What stands for a connection or session is as good as the thing itself."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
import psycopg2
import pytest
import wrapt
from celery.local import Proxy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from werkzeug.local import LocalProxy

from celery_outbox import UnusableTarget
from tests.producer.conftest import Shop, Stored


class Traced(wrapt.ObjectProxy[Any]):
    """A proxy as agents make them: the class says nothing of psycopg."""


class SubConnection(psycopg.Connection[Any]):
    """A subclass of the user's own."""


class SubPsycopg2(psycopg2.extensions.connection):
    """The same."""


class SubSession(Session):
    """The same."""


PROXIES: dict[str, Callable[[Any], Any]] = {
    "itself": lambda target: target,
    "wrapt": Traced,
    "wrapt twice": lambda target: Traced(Traced(target)),
    "werkzeug": lambda target: LocalProxy(lambda: target),
    "celery": lambda target: Proxy(lambda: target),
    "wrapt around werkzeug": lambda target: Traced(LocalProxy(lambda: target)),
}


class Kind(NamedTuple):
    """How to open one of them, and how to run a statement on it."""

    open: Callable[[str], Any]
    execute: Callable[[Any, str], object]


def _engine(url: str) -> Any:
    return create_engine(url.replace("postgresql", "postgresql+psycopg", 1))


KINDS = {
    "psycopg": Kind(SubConnection.connect, lambda c, query: c.execute(query)),
    "psycopg2": Kind(
        lambda url: psycopg2.connect(url, connection_factory=SubPsycopg2),
        lambda c, query: c.cursor().execute(query),
    ),
    "Session": Kind(lambda url: SubSession(_engine(url)), lambda s, query: s.execute(text(query))),
    "scoped_session": Kind(
        lambda url: scoped_session(sessionmaker(_engine(url), class_=SubSession)),
        lambda s, query: s.execute(text(query)),
    ),
    "Connection": Kind(lambda url: _engine(url).connect(), lambda c, query: c.execute(text(query))),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """One of what an application has."""
    return KINDS[request.param]


@pytest.fixture
def target(kind: Kind, database: str) -> Iterator[Any]:
    """An open one."""
    target = kind.open(database)
    yield target
    target.close()


@pytest.mark.parametrize("proxy", PROXIES)
def test_every_way(shop: Shop, kind: Kind, target: Any, stored: Stored, proxy: str) -> None:
    """`outbox=`, `using`, `transaction`, `publish` and `cancel`, with savepoints between."""
    wrapped, outbox = PROXIES[proxy](target), shop.app.outbox
    shop.add.apply_async((1, 0), outbox=wrapped)
    with outbox.using(wrapped) as joined:
        assert joined is wrapped
        shop.add.delay(2, 0)
        kind.execute(target, "SAVEPOINT a")
        shop.add.delay(3, 0)
        kind.execute(target, "ROLLBACK TO a")
        taken_back = shop.add.delay(4, 0)
    assert outbox.cancel(wrapped, taken_back.id) is True
    target.commit()
    with outbox.transaction(wrapped):
        shop.add.delay(5, 0)
        with suppress(KeyError), outbox.transaction(target):
            shop.add.delay(6, 0)
            raise KeyError

    assert stored.args() == [1, 2, 5]


def test_one_connection_by_two_names(shop: Shop, target: Any, stored: Stored) -> None:
    """A proxy and what it stands for are one connection, with one order of tasks."""
    with shop.app.outbox.using(Traced(target)):
        shop.add.delay(1, 0)
        shop.add.apply_async((2, 0), outbox=target)
        with shop.app.outbox.using(LocalProxy(lambda: target)):
            shop.add.delay(3, 0)
        shop.add.delay(4, 0)
    target.commit()

    assert stored.args() == [1, 2, 3, 4]


def test_an_async_connection(shop: Shop, database: str, stored: Stored) -> None:
    """The same with `async with`."""

    async def main() -> None:
        connection = await psycopg.AsyncConnection.connect(database)
        async with connection, shop.app.outbox.transaction(Traced(connection)):
            shop.add.delay(1, 0)

    asyncio.run(main())
    assert stored.args() == [1]


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_proxy_of_something_else(shop: Shop, proxy: str) -> None:
    """Is refused as that is."""
    with pytest.raises(UnusableTarget, match="it is no Connection of psycopg"):
        shop.app.outbox.using(PROXIES[proxy](object()))
