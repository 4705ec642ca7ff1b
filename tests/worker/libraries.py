"""Every way to reach the ledger's database that an idempotent task may be given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import django  # type: ignore[import-untyped]  # Django ships no types
import psycopg
from django.conf import settings  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from tests.fixtures.django import database_settings, forget

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


LIBRARIES = (
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
)
