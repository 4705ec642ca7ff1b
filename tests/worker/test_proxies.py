"""What agents of monitoring make of a connection or a session is as good as the thing itself."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import wrapt
from celery import Celery
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from werkzeug.local import LocalProxy

from celery_inbox import idempotent
from tests.worker.ledger import Deliver, Ledger

CHARGED = "INSERT INTO effect (note) VALUES ('charged')"


class Traced(wrapt.ObjectProxy[Any]):
    """A proxy that claims the class of what it wraps."""


class Watched:
    """A proxy that claims nothing, and has only what it was asked for so far."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __enter__(self) -> Any:
        self.__wrapped__.__enter__()
        return self

    def __exit__(self, *ending: Any) -> Any:
        return self.__wrapped__.__exit__(*ending)


PROXIES: dict[str, Callable[[Any], Any]] = {
    "wrapt": Traced,
    "wrapt twice": lambda target: Traced(Traced(target)),
    "by hand": Watched,
    "werkzeug": lambda target: LocalProxy(lambda: target),
}


CASES = [(library, proxy) for library in ("psycopg", "SQLAlchemy") for proxy in PROXIES]
CASES.append(("SQLAlchemy on proxies", "wrapt"))  # SQLAlchemy itself refuses the others


@pytest.mark.parametrize(("library", "proxy"), CASES)
def test_a_proxy_is_as_good(
    app: Celery, ledger: Ledger, deliver: Deliver, library: str, proxy: str
) -> None:
    """The body gets the proxy, and savepoints on it work; the inbox works beside it."""
    wrap = PROXIES[proxy]

    def connected() -> Any:
        connection = psycopg.connect(ledger.dsn)
        return wrap(connection) if library == "SQLAlchemy on proxies" else connection

    engine = create_engine("postgresql+psycopg://", creator=connected)
    given: list[Any] = []

    def connect() -> Any:
        if library == "psycopg":
            given.append(wrap(psycopg.connect(ledger.dsn)))
        else:
            given.append(wrap(Session(engine)) if library == "SQLAlchemy" else Session(engine))
        return given[-1]

    @app.task(bind=True)
    @idempotent(connect)
    def charge(self: Any, handle: Any) -> str:
        if library == "psycopg":
            with handle.transaction():
                handle.execute(CHARGED)
        else:
            with handle.begin_nested():
                handle.execute(text(CHARGED))
        return "charged"

    assert deliver(charge) == "charged"
    assert deliver(charge) == "charged"
    engine.dispose()
    assert ledger.effects() == ["charged"]
    assert len(ledger.inbox()) == 1
