"""Whatever leads to a database may be given; connections are kept as long as they are fit."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import psycopg
import pytest
from celery import Celery
from psycopg_pool import AsyncConnectionPool, ConnectionPool, NullConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from celery_inbox import UnusableConnection, idempotent, purge
from tests.worker.ledger import Deliver, Ledger

PID = "SELECT pg_backend_pid()"
CHARGED = "INSERT INTO effect (note) VALUES ('charged')"


def url(ledger: Ledger) -> Iterator[Any]:
    """A URL as libpq reads it."""
    yield ledger.dsn


def conninfo(ledger: Ledger) -> Iterator[Any]:
    """Its other notation."""
    yield psycopg.conninfo.make_conninfo(ledger.dsn, application_name="shop")


def pool(ledger: Ledger) -> Iterator[Any]:
    """A pool of psycopg_pool."""
    with ConnectionPool(ledger.dsn, min_size=1) as opened:
        yield opened


def null_pool(ledger: Ledger) -> Iterator[Any]:
    """One that keeps nothing."""
    with NullConnectionPool(ledger.dsn) as opened:
        yield opened


def engine(ledger: Ledger) -> Iterator[Any]:
    """An engine of SQLAlchemy."""
    made = create_engine(ledger.dsn.replace("postgresql", "postgresql+psycopg", 1))
    yield made
    made.dispose()


def factory(ledger: Ledger) -> Iterator[Any]:
    """A session factory of SQLAlchemy."""
    for made in engine(ledger):
        yield sessionmaker(made)


def alias(ledger: Ledger) -> Iterator[Any]:
    """A database of Django's."""
    from tests.worker.libraries import django_alias

    for _ in django_alias(ledger.dsn):
        yield "shop"


SOURCES = (url, conninfo, pool, null_pool, engine, factory, alias)


def run(handle: Any, sql: str) -> Any:
    """Run a statement on whatever the body was given."""
    if isinstance(handle, Session):
        return handle.execute(text(sql))
    if isinstance(handle, str):
        from django.db import connections  # type: ignore[import-untyped]  # Django ships no types

        cursor = connections[handle].cursor()
        cursor.execute(sql)
        return cursor
    return handle.execute(sql)


@pytest.mark.parametrize("source", SOURCES)
def test_all_of_them_work(app: Celery, ledger: Ledger, deliver: Deliver, source: Any) -> None:
    """Once per message, and rows are purged by the same."""
    with contextmanager(source)(ledger) as given:

        @app.task(bind=True)
        @idempotent(given)
        def charge(self: Any, handle: Any) -> str:
            run(handle, CHARGED)
            return "charged"

        assert [deliver(charge), deliver(charge)] == ["charged", "charged"]
        ledger.run("UPDATE inbox.processed SET processed_at = now() - interval '1 year'")
        assert purge(given) == 1
    assert ledger.effects() == ["charged"]


def backend(app: Celery, source: Any) -> Any:
    """A task that returns the session it ran in."""

    @app.task(bind=True)
    @idempotent(source)
    def backend(self: Any, conn: Any, fails: bool = False) -> int:
        [pid] = conn.execute(PID).fetchone()
        if fails:
            raise LookupError
        return int(pid)

    app.finalize()
    return backend


def test_a_connection_is_kept_from_task_to_task(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Also by a task that failed."""
    task = backend(app, ledger.dsn)
    first = deliver(task, id="1")
    with pytest.raises(LookupError):
        deliver(task, True, id="2")

    assert deliver(task, id="3") == first


def test_one_that_the_server_has_ended_is_replaced(
    app: Celery, ledger: Ledger, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the task runs: no attempt is lost to it."""
    caplog.set_level("INFO", "celery_inbox")
    task = backend(app, ledger.dsn)
    first = deliver(task, id="1")
    ledger.run("SELECT pg_terminate_backend(%s, 5000)", first)

    assert deliver(task, id="2") != first
    assert "rolled back" not in caplog.text


def test_tasks_at_the_same_time_have_one_each(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """And later ones take what is free."""
    together = Barrier(3)

    @app.task(bind=True)
    @idempotent(ledger.dsn)
    def meet(self: Any, conn: Any) -> int:
        together.wait(20)
        [pid] = conn.execute(PID).fetchone()
        return int(pid)

    app.finalize()
    with ThreadPoolExecutor(3) as threads:
        rounds = [
            [*threads.map(lambda n: deliver(meet, id=n), (f"{turn}{n}" for n in range(3)))]
            for turn in "ab"
        ]

    assert len({*rounds[0]}) == 3
    assert {*rounds[1]} == {*rounds[0]}


@pytest.mark.parametrize("source", [url, engine])
def test_a_forked_process_has_its_own(
    app: Celery, ledger: Ledger, deliver: Deliver, source: Any
) -> None:
    """The parent's connection goes on, and the child neither uses nor ends it."""
    with contextmanager(source)(ledger) as given:

        @app.task(bind=True)
        @idempotent(given)
        def backend(self: Any, handle: Any) -> int:
            return int(run(handle, PID).fetchone()[0])

        app.finalize()
        first = deliver(backend, id="parent")
        assert in_a_child(lambda: deliver(backend, id="child")) != first
        assert deliver(backend, id="parent again") == first


def test_a_pool_that_was_opened_before_the_fork_is_refused(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Its connections are the parent's: the child would talk in between."""
    with ConnectionPool(ledger.dsn, min_size=1) as opened:
        task = backend(app, opened)
        deliver(task, id="parent")

        def refused() -> int:
            with pytest.raises(UnusableConnection, match="worker_process_init"):
                deliver(task, id="child")
            return 1

        assert in_a_child(refused) == 1


def in_a_child(work: Any) -> int:
    """What the work returns in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        return int(answer.read() or -1)


@pytest.mark.parametrize(
    "given",
    ["postgresql+psycopg://u:tell-nobody@h/db", "host=h password=tell-nobody sslmod=x", "a=b=c d"],
)
def test_a_url_that_nobody_can_read_is_refused_at_once(given: str) -> None:
    """And not repeated, for it may hold a password."""
    with pytest.raises(UnusableConnection, match="database URL") as raised:
        idempotent(given)
    assert "tell-nobody" not in str(raised.value)


def test_what_leads_nowhere_is_refused_at_once(ledger: Ledger) -> None:
    """The error names its kind and what may be given."""
    waits = AsyncConnectionPool(ledger.dsn, open=False)
    for given in (None, 7, waits):
        with pytest.raises(UnusableConnection, match="give it a database URL"):
            idempotent(given)


def test_a_pool_that_is_not_open_names_the_way_out(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """It would stay closed however long the task was tried again."""
    task = backend(app, ConnectionPool(ledger.dsn, open=False))

    with pytest.raises(UnusableConnection, match="not open"):
        deliver(task)
