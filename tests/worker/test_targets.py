"""psycopg, SQLAlchemy and Django tasks behave alike: what holds for one holds for all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import django  # type: ignore[import-untyped]  # Django ships no types
import psycopg
import pytest
from celery import Celery
from celery.exceptions import Ignore
from django.conf import settings  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from celery_inbox import InboxMissing, idempotent
from tests.fixtures.django import database_settings, forget
from tests.worker.ledger import Deliver, Ledger

NOTE = "INSERT INTO effect (note) VALUES ('charged')"


@dataclass(frozen=True, slots=True)
class Library:
    """How one library connects, and how a task body writes through it."""

    connect: Callable[[], Any]
    write: Callable[[Any, str], object]


def psycopg_connection(dsn: str) -> Iterator[Library]:
    """A connection that is closed after the task."""
    yield Library(lambda: psycopg.connect(dsn), lambda conn, sql: conn.execute(sql))


def psycopg_pool(dsn: str) -> Iterator[Library]:
    """A context manager that lends a connection, as a pool does."""

    @contextmanager
    def lend() -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(dsn) as connection:
            yield connection

    yield Library(lend, lambda conn, sql: conn.execute(sql))


def psycopg_autocommit(dsn: str) -> Iterator[Library]:
    """A connection that would commit each statement by itself."""
    yield Library(
        lambda: psycopg.connect(dsn, autocommit=True), lambda conn, sql: conn.execute(sql)
    )


def sqlalchemy_session(dsn: str) -> Iterator[Library]:
    """A Session that begins nothing by itself."""
    engine = create_engine(dsn.replace("postgresql", "postgresql+psycopg", 1))
    yield Library(lambda: Session(engine), lambda session, sql: session.execute(text(sql)))
    engine.dispose()


def sqlalchemy_begin(dsn: str) -> Iterator[Library]:
    """sessionmaker.begin: a Session handed over inside its transaction."""
    engine = create_engine(dsn.replace("postgresql", "postgresql+psycopg", 1))
    yield Library(sessionmaker(engine).begin, lambda session, sql: session.execute(text(sql)))
    engine.dispose()


def psycopg_kept(dsn: str) -> Iterator[Library]:
    """A context manager that lends a kept connection, in a transaction that nobody else commits."""
    kept = [psycopg.connect(dsn)]

    @contextmanager
    def lend() -> Iterator[psycopg.Connection[Any]]:
        if kept[-1].closed:
            kept.append(psycopg.connect(dsn))
        kept[-1].execute("SELECT 1")
        yield kept[-1]

    yield Library(lend, lambda conn, sql: conn.execute(sql))
    kept[-1].close()


def psycopg_transaction(dsn: str) -> Iterator[Library]:
    """A context manager that lends a connection within a transaction block of its own."""

    @contextmanager
    def lend() -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(dsn) as connection, connection.transaction():
            connection.execute("SELECT 1")
            yield connection

    yield Library(lend, lambda conn, sql: conn.execute(sql))


def sqlalchemy_begun(dsn: str) -> Iterator[Library]:
    """A Session that has run a query, and so is in a transaction that nobody else commits."""
    engine = create_engine(dsn.replace("postgresql", "postgresql+psycopg", 1))

    def connect() -> Session:
        session = Session(engine)
        session.execute(text("SELECT 1"))
        return session

    yield Library(connect, lambda session, sql: session.execute(text(sql)))
    engine.dispose()


def sqlalchemy_lent(dsn: str) -> Iterator[Library]:
    """The same from a context manager, with a transaction begun by hand."""
    engine = create_engine(dsn.replace("postgresql", "postgresql+psycopg", 1))

    @contextmanager
    def lend() -> Iterator[Session]:
        with Session(engine) as session:
            session.begin()
            yield session

    yield Library(lend, lambda session, sql: session.execute(text(sql)))
    engine.dispose()


def django_alias(dsn: str, *, autocommit: bool = True) -> Iterator[Library]:
    """The name of a configured database."""
    if not settings.configured:
        settings.configure()
        django.setup()
    database = {**database_settings(dsn), "AUTOCOMMIT": autocommit}
    configured = connections.configure_settings({"default": {}, "shop": database})
    connections.databases["shop"] = configured["shop"]
    forget("shop")

    def write(alias: str, sql: str) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(sql)

    yield Library(lambda: "shop", write)
    forget("shop")


def django_without_autocommit(dsn: str) -> Iterator[Library]:
    """A database whose every statement is in a transaction, for the project to commit."""
    yield from django_alias(dsn, autocommit=False)


@pytest.fixture(
    params=[
        psycopg_connection,
        psycopg_pool,
        psycopg_autocommit,
        psycopg_kept,
        psycopg_transaction,
        sqlalchemy_session,
        sqlalchemy_begin,
        sqlalchemy_begun,
        sqlalchemy_lent,
        django_alias,
        django_without_autocommit,
    ],
    ids=lambda library: library.__name__,
)
def library(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Library]:
    """One way to reach the ledger's database."""
    yield from request.param(ledger.dsn)


def test_effects_and_inbox_row_commit_together_once(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The duplicate is answered from the inbox."""

    @app.task(bind=True, name="charge")
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        library.write(handle, NOTE)
        return {"charged": True}

    assert deliver(charge) == {"charged": True}
    assert deliver(charge) == {"charged": True}
    assert ledger.effects() == ["charged"]
    assert ledger.inbox() == [("message-1", "charge", '{"charged": true}')]


def test_an_error_rolls_everything_back(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """Neither effects nor inbox row stay."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        library.write(handle, NOTE)
        raise LookupError("no such card")

    with pytest.raises(LookupError):
        deliver(charge)
    assert ledger.effects() == []
    assert ledger.inbox() == []


def test_ignore_commits(app: Celery, ledger: Ledger, deliver: Deliver, library: Library) -> None:
    """What replace() ends with is no failure."""

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        library.write(handle, NOTE)
        raise Ignore

    with pytest.raises(Ignore):
        deliver(charge)
    assert ledger.effects() == ["charged"]


def test_a_lost_race_is_tried_again(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The driver's error is recognised inside the library's own."""
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        attempts.append(1)
        library.write(handle, NOTE)
        if len(attempts) == 1:
            library.write(handle, "DO $$ BEGIN RAISE serialization_failure; END $$")

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


def test_a_lost_connection_is_replaced(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The next attempt gets a connection that works."""
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        attempts.append(1)
        library.write(handle, NOTE)
        if len(attempts) == 1:
            ledger.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


def test_a_missing_inbox_is_named(
    app: Celery, ledger: Ledger, deliver: Deliver, library: Library
) -> None:
    """The library's wrapping does not hide what is missing."""
    ledger.run("DROP SCHEMA inbox CASCADE")

    @app.task(bind=True)
    @idempotent(library.connect)
    def charge(self: Any, handle: Any) -> Any:
        pytest.fail("ran without an inbox")

    with pytest.raises(InboxMissing):
        deliver(charge)
