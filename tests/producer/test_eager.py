"""Eager tasks sent in a `transaction()` block: they run after its commit, or never."""

import asyncio
import pickle
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from typing import Any

import psycopg
import pytest
from celery import Task
from celery.exceptions import TaskRevokedError
from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types
from sqlalchemy import Engine, NullPool, create_engine
from sqlalchemy.orm import Session

from celery_outbox import OutboxCelery
from tests.producer.conftest import Connection
from tests.producer.drivers import ASYNCHRONOUS, DJANGO, SYNCHRONOUS, Django, Driver, opened
from tests.producer.eager_app import app as app
from tests.producer.eager_app import note as note
from tests.producer.eager_app import open_connection as open_connection
from tests.producer.eager_app import ran as ran
from tests.producer.soaking import finished


def rolled_back() -> None:
    """Leave psycopg's block without effects, by an error that goes no further."""
    raise psycopg.Rollback


#: What a block is of, and how the code inside rolls it back although no error comes out of it.
WITHOUT_ERROR: dict[str, Callable[[str], tuple[Any, Callable[[], object]]]] = {
    "psycopg.Rollback": lambda url: (psycopg.connect(url), rolled_back),
    "ROLLBACK": lambda url: ((it := psycopg.connect(url)), lambda: it.execute("ROLLBACK")),
    "Session": lambda url: ((it := Session(engine(url))), it.rollback),
    "Connection": lambda url: ((it := engine(url).connect()), lambda: ended(it)),
    "Django": lambda _: ("default", lambda: transaction.set_rollback(True)),
}


def engine(url: str) -> Engine:
    """An engine that keeps no connection."""
    return create_engine(url.replace("postgresql", "postgresql+psycopg", 1), poolclass=NullPool)


def ended(connection: Any) -> None:
    """Roll back the transaction of an SQLAlchemy Connection."""
    connection.get_transaction().rollback()


@pytest.mark.usefixtures("django_database")
@pytest.mark.parametrize("way", WITHOUT_ERROR)
def test_a_rollback_without_an_error(
    app: OutboxCelery, note: Task[..., Any], ran: list[str], database: str, way: str
) -> None:
    """Nothing that was sent runs, and its result says why."""
    target, roll_back = WITHOUT_ERROR[way](database)
    with app.outbox.transaction(target):
        result = note.delay("x")
        roll_back()

    assert ran == []
    with pytest.raises(TaskRevokedError, match="rolled back"):
        result.get()
    with app.outbox.transaction(target):
        note.delay("y")
    assert ran == ["y"]
    if target != "default":
        target.close()


@pytest.mark.parametrize("driver", [*SYNCHRONOUS, *ASYNCHRONOUS, DJANGO], ids=str)
def test_finds_what_was_stored(
    driver: Driver, database: str, app: OutboxCelery, request: pytest.FixtureRequest
) -> None:
    """In another session, as a worker would, on every driver; and its id is known before."""
    if driver is DJANGO:
        request.getfixturevalue("django_database")
    found: list[int] = []

    @app.task(name="count", shared=False)
    def count() -> None:
        with psycopg.connect(database) as other:
            found.extend(*other.execute("SELECT count(*) FROM effect").fetchall())

    async def main() -> None:
        talk = await opened(driver, database)
        await talk.execute("CREATE TABLE effect (n int)")
        await talk.commit()
        if isinstance(talk, Django):
            talk.in_autocommit()
        async with talk.transaction(app.outbox):
            await talk.execute("INSERT INTO effect VALUES (1)")
            result = count.delay()
            assert (result.id, found) == (result.task_id, [])
        assert (result.state, found) == ("SUCCESS", [1])
        await talk.close()

    (asyncio.run if driver in ASYNCHRONOUS else finished)(main())


def test_does_not_run_after_a_rollback(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Nor if its result is asked for later, which says why."""
    with suppress(KeyError), app.outbox.transaction(open_connection):
        result = note.delay(1)
        raise KeyError

    assert (result.state, result.successful(), ran) == ("REVOKED", False, [])
    with pytest.raises(TaskRevokedError, match=r"note did not run: .* rolled back"):
        result.get()


def test_savepoints(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Take along what was sent inside; the rest waits for the commit, in the order of sending."""
    with app.outbox.transaction(open_connection):
        note.delay(1)
        with app.outbox.transaction(open_connection):
            note.delay(2)
        with suppress(KeyError), app.outbox.transaction(open_connection):
            note.delay(3)
            raise KeyError
        with app.outbox.using(open_connection):
            note.delay(4)
        assert ran == []

    assert ran == [1, 2, 4]


def test_a_result_that_is_asked_for(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Is there at once, as in plain Celery, and the task runs once."""
    with app.outbox.transaction(open_connection):
        assert note.delay(1).get() == 1
        assert note.delay(2).successful()
        assert ran == [1, 2]

    assert ran == [1, 2]


def test_then(app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection) -> None:
    """What waits for a result is called with it."""
    told = []
    with app.outbox.transaction(open_connection):
        note.delay(1).then(lambda result: told.append(result.result))

    assert told == [1]


@pytest.mark.parametrize("way", ["using", "apply", "a transaction of one's own"])
def test_runs_at_once(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection, way: str
) -> None:
    """Where nobody here commits, and where it was not sent, as in plain Celery."""
    if way == "using":
        with app.outbox.using(open_connection):
            note.delay(1)
            assert ran == [1]
    elif way == "apply":
        with app.outbox.transaction(open_connection):
            note.apply((1,))
            assert ran == [1]
    else:
        open_connection.execute("SELECT 1")
        with app.outbox.transaction(open_connection):
            note.delay(1)
            assert ran == [1]


def test_arguments_are_those_of_the_send(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Whatever becomes of them until the commit."""
    argument = [1]
    with app.outbox.transaction(open_connection):
        note.delay(argument)
        argument.append(2)

    assert ran == [[1]]


def test_links_are_those_of_the_send(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Their arguments included."""
    argument = [1]
    with app.outbox.transaction(open_connection):
        note.apply_async((0,), link=note.si(argument))
        argument.append(2)

    assert ran == [0, [1]]


@pytest.fixture
def propagating(app: OutboxCelery) -> None:
    """Errors of eager tasks come out."""
    app.conf.task_eager_propagates = True


@pytest.mark.usefixtures("propagating")
def test_an_error(app: OutboxCelery, note: Any, open_connection: Connection) -> None:
    """With task_eager_propagates it is raised where the block ends, which has committed."""

    def send() -> None:
        with app.outbox.transaction(open_connection):
            open_connection.execute("CREATE TABLE kept ()")
            note.delay("bad")

    with pytest.raises(KeyError, match="bad"):
        send()

    assert open_connection.execute("SELECT to_regclass('kept')").fetchone() == ("kept",)


@pytest.mark.usefixtures("propagating")
def test_after_an_error(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """The others run all the same. The first error is raised, with a note of each other one."""
    results: list[Any] = []

    def send() -> None:
        with app.outbox.transaction(open_connection):
            results.extend(note.delay(what) for what in (1, "bad", 2, "bad", 3))

    with pytest.raises(KeyError, match="bad") as raised:
        send()

    assert ran == [1, "bad", 2, "bad", 3]
    assert [each.state for each in results] == [
        "SUCCESS", "FAILURE", "SUCCESS", "FAILURE", "SUCCESS",
    ]  # fmt: skip
    assert raised.value.__notes__ == [
        "note, sent in the same transaction, failed too: KeyError('bad')"
    ]
    assert results[1].result is raised.value
    assert "KeyError: 'bad'" in results[1].traceback


@pytest.mark.usefixtures("propagating")
def test_an_error_that_was_asked_for(
    app: OutboxCelery, note: Any, open_connection: Connection
) -> None:
    """Is raised by get() and not once more; of one that was only looked at, the block tells."""
    with app.outbox.transaction(open_connection), pytest.raises(KeyError, match="bad"):
        note.delay("bad").get()

    def look() -> None:
        with app.outbox.transaction(open_connection):
            assert note.delay("bad").state == "FAILURE"

    with pytest.raises(KeyError, match="bad"):
        look()


@pytest.mark.usefixtures("propagating")
def test_an_interrupt(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Ends it at once; the results of what was still to run say so."""

    @app.task(name="interrupted", shared=False)
    def interrupted() -> None:
        raise KeyboardInterrupt

    results: list[Any] = []

    def send() -> None:
        with app.outbox.transaction(open_connection):
            interrupted.delay()
            results.append(note.delay(1))

    with pytest.raises(KeyboardInterrupt):
        send()
    assert (results[0].state, ran) == ("REVOKED", [])
    with pytest.raises(TaskRevokedError, match="KeyboardInterrupt was raised before its turn"):
        results[0].get()


def test_a_result_that_is_revoked(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Its task does not run."""
    with app.outbox.transaction(open_connection):
        result = note.delay(1)
        result.revoke()
    assert (result.state, ran) == ("REVOKED", [])


def test_a_result_that_is_copied(app: OutboxCelery, note: Any, open_connection: Connection) -> None:
    """Or pickled, is that of the task."""
    with app.outbox.transaction(open_connection):
        result = note.delay(1)
    assert pickle.loads(pickle.dumps(result)).get() == copy(result).get() == 1


def test_somebodys_own_apply_async(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Sends nothing by calling apply()."""

    def apply_async() -> Any:
        return note.apply((1,))

    with app.outbox.transaction(open_connection):
        assert apply_async().get() == 1
        assert ran == [1]


def test_an_agent(
    app: OutboxCelery,
    note: Any,
    ran: list[Any],
    open_connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That watches what runs a task changes nothing."""
    original: Any = Task.apply

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        return original(self, *args, **options)

    monkeypatch.setattr(Task, "apply", watched)
    with app.outbox.transaction(open_connection):
        note.delay(1)
        assert ran == []
    assert ran == [1]


def test_a_transaction_that_is_named(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection, database: str
) -> None:
    """By outbox= is the one that is waited for."""
    with psycopg.connect(database) as other, app.outbox.transaction(other):
        with app.outbox.transaction(open_connection):
            note.apply_async((1,), outbox=other)
        assert ran == []
    assert ran == [1]
