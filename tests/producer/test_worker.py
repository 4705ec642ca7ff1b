"""What a running task's worker sends: never lost with the transaction its own exception ends."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from celery import _state, chain, chord, group, signals
from celery.app.trace import build_tracer
from celery.beat import Scheduler, Service
from celery.exceptions import Ignore
from kombu import Connection as Broker

from celery_outbox import NoTransaction, OutboxCelery
from celery_outbox.dispatch import dispatch_of
from tests.producer.conftest import Shop, Stored, make_shop

OWN_ID = "the-running-task"

Connect = Callable[[], Any]


def deliver(app: Any, name: str, *args: Any, **request: Any) -> Any:
    """Run a task as a worker does when its message arrives; return the state and the result."""
    task = app.tasks[name]
    received = {
        "id": OWN_ID,
        "called_directly": False,
        "delivery_info": {},
        "retries": 0,
        **request,
    }
    outcome = build_tracer(name, task, app=app)(OWN_ID, list(args), {}, received)
    return outcome.info.state if outcome.info else "SUCCESS", outcome.retval


@pytest.fixture
def worker_shop(trap: str, database: str) -> Shop:
    """The app of a worker that knows the outbox database."""
    return make_shop(trap, result_backend="cache+memory://", outbox_database_url=database)


def arrived(url: str) -> list[str]:
    """Return the names of the tasks that arrived at the broker."""
    with Broker(url) as broker:
        queue = broker.SimpleQueue("celery")
        names = []
        while queue.qsize():
            message = queue.get(timeout=1)
            message.ack()
            names.append(message.headers["task"])
    return names


def using(app: OutboxCelery, connection: Any) -> Any:
    """Return the two nested blocks of a user's own transaction."""

    @contextmanager
    def block() -> Iterator[None]:
        with connection.transaction(), app.outbox.using(connection):
            yield

    return block()


def owned(app: OutboxCelery, connection: Any) -> Any:
    """Return the outbox's own transaction block."""
    return app.outbox.transaction(connection)


@pytest.mark.parametrize("block", [using, owned])
def test_own_retry_survives_the_rollback(
    worker_shop: Shop, database: str, stored: Stored, block: Any
) -> None:
    """retry() raises, which rolls back what the task did, but not the retry."""
    app = worker_shop.app

    @app.task(name="shop.flaky", shared=False, bind=True)
    def flaky(self: Any) -> None:
        with psycopg.connect(database) as connection, block(app, connection):
            worker_shop.add.delay(1, 0)
            raise self.retry(countdown=60)

    state, _ = deliver(app, "shop.flaky")
    (row,) = stored.rows()

    assert state == "RETRY"
    assert (row.message_id, row.task) == (OWN_ID, "shop.flaky")
    assert row.headers["retries"] == 1
    assert row.available_at is not None


REPLACEMENTS: dict[str, Callable[[Shop], Any]] = {
    "task": lambda s: s.add.s(1, 1),
    "chain": lambda s: chain(s.add.s(1, 1), s.add.s(2)),
    "group": lambda s: group(s.add.s(1, 1), s.add.s(2, 2)),
    "chord": lambda s: chord([s.add.s(1, 1), s.add.s(2, 2)], s.total.s()),
}


@pytest.mark.parametrize("backend", ["cache+memory://", "file:///tmp"])
@pytest.mark.parametrize("kind", REPLACEMENTS)
def test_own_replacement_survives_the_rollback(
    trap: str, database: str, stored: Stored, kind: str, backend: str
) -> None:
    """replace() raises Ignore: the transaction rolls back, the replacement is sent whole."""
    shop = make_shop(trap, result_backend=backend, outbox_database_url=database)
    app = shop.app

    @app.task(name="shop.replaced", shared=False, bind=True)
    def replaced(self: Any) -> Any:
        with psycopg.connect(database) as connection, using(app, connection):
            shop.add.delay("rolled back", 0)
            return self.replace(REPLACEMENTS[kind](shop))

    state, _ = deliver(app, "shop.replaced")
    tasks = [row.task for row in stored.rows()]
    grouped = kind in ("group", "chord")

    assert state == "IGNORED"
    assert tasks.count("shop.add") == (2 if grouped else 1)
    assert tasks.count("celery.chord_unlock") == (grouped and backend == "file:///tmp")
    assert "rolled back" not in stored.args()


def test_replacement_commits_with_the_data(
    worker_shop: Shop, database: str, stored: Stored
) -> None:
    """In `transaction` a task that replaces itself has done its work: both are committed."""
    app = worker_shop.app

    @app.task(name="shop.replaced", shared=False, bind=True)
    def replaced(self: Any) -> Any:
        with psycopg.connect(database) as connection, app.outbox.transaction(connection):
            connection.execute("CREATE TABLE effect ()")
            worker_shop.add.delay(1, 0)
            return self.replace(worker_shop.add.s(2, 0))

    state, _ = deliver(app, "shop.replaced")
    with psycopg.connect(database) as connection:
        connection.execute("SELECT FROM effect")

    assert state == "IGNORED"
    assert stored.args() == [1, 2]


@pytest.mark.parametrize("inner", [using, owned])
def test_a_savepoint_takes_back_no_replacement(
    worker_shop: Shop, database: str, stored: Stored, inner: Any
) -> None:
    """The replacement is in the commit of the outermost `transaction`; its own is kept whole."""
    app = worker_shop.app

    @app.task(name="shop.replaced", shared=False, bind=True)
    def replaced(self: Any) -> Any:
        with psycopg.connect(database) as connection, app.outbox.transaction(connection):
            worker_shop.add.delay("outside", 0)
            with inner(app, connection):
                worker_shop.add.delay("inside", 0)
                return self.replace(worker_shop.add.s("instead", 0))

    assert deliver(app, "shop.replaced")[0] == "IGNORED"
    inside = ["inside"] if inner is owned else []
    assert stored.args() == ["outside", *inside, "instead"]


@pytest.mark.parametrize("block", [using, owned])
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_added_to_a_chord_survives_the_rollback(
    trap: str, database: str, valkey_url: str, stored: Stored, block: Any, lazy: bool
) -> None:
    """The result backend has counted it by then: without its row the chord would never end."""
    shop = make_shop(trap, result_backend=valkey_url, outbox_database_url=database)
    app = shop.app

    @app.task(name="shop.growing", shared=False, bind=True)
    def growing(self: Any) -> None:
        with psycopg.connect(database) as connection, block(app, connection):
            shop.add.delay("rolled back", 0)
            added = self.add_to_chord(shop.add.s(1, 0), lazy=lazy)
            if lazy:
                added.delay()
            raise Ignore

    deliver(app, "shop.growing", group="g", chord=dict(shop.total.s()))

    assert stored.args() == [1]


def test_what_is_added_to_a_chord_without_database(plain_broker: str, valkey_url: str) -> None:
    """The worker sends it as Celery does."""
    shop = make_shop(plain_broker, result_backend=valkey_url)

    @shop.app.task(name="shop.growing", shared=False, bind=True)
    def growing(self: Any) -> None:
        self.add_to_chord(shop.add.s(1, 0))
        raise Ignore

    deliver(shop.app, "shop.growing", group="g", chord=dict(shop.total.s()))

    assert arrived(plain_broker) == ["shop.add"]


def test_ignore_alone_rolls_back(worker_shop: Shop, database: str, stored: Stored) -> None:
    """Ignore that no replacement raised is an error like any other."""
    app = worker_shop.app

    @app.task(name="shop.ignored", shared=False)
    def ignored() -> None:
        with psycopg.connect(database) as connection, app.outbox.transaction(connection):
            worker_shop.add.delay(1, 0)
            raise Ignore

    deliver(app, "shop.ignored")

    assert stored.rows() == []


def test_continuation_is_durable(worker_shop: Shop, stored: Stored) -> None:
    """With a database URL, what follows a task becomes rows."""
    link = worker_shop.add.s(1)
    step = worker_shop.add.s(2)
    deliver(worker_shop.app, "shop.add", 1, 1, callbacks=[link], chain=[step])

    assert [row.headers["parent_id"] for row in stored.rows()] == [OWN_ID, OWN_ID]


def test_continuation_without_database(plain_broker: str) -> None:
    """Without one, the worker sends what follows a task as Celery does."""
    shop = make_shop(plain_broker, result_backend="cache+memory://")
    deliver(shop.app, "shop.add", 1, 1, callbacks=[shop.add.s(1)], chain=[shop.add.s(2)])

    assert arrived(plain_broker) == ["shop.add", "shop.add"]


def test_retry_and_replacement_without_database(plain_broker: str, database: str) -> None:
    """Without one, a task's own retry and replacement go to the broker too."""
    shop = make_shop(plain_broker)
    app = shop.app

    @app.task(name="shop.flaky", shared=False, bind=True)
    def flaky(self: Any) -> None:
        with psycopg.connect(database) as connection, app.outbox.transaction(connection):
            raise self.retry(countdown=0)

    @app.task(name="shop.replaced", shared=False, bind=True)
    def replaced(self: Any) -> Any:
        return self.replace(shop.add.s(1, 1))

    deliver(app, "shop.flaky")
    deliver(app, "shop.replaced")

    assert arrived(plain_broker) == ["shop.flaky", "shop.add"]


def test_chord_body_without_database(plain_broker: str) -> None:
    """The worker that finishes a chord's last task sends its body."""
    shop = make_shop(plain_broker, result_backend="cache+memory://")
    backend = shop.app.backend
    body = shop.total.s().set(task_id="body")
    backend.apply_chord(("the-group", [shop.app.AsyncResult(OWN_ID)]), body)
    deliver(shop.app, "shop.add", 1, 1, group="the-group", chord=body, root_id=OWN_ID)

    assert arrived(plain_broker) == ["shop.total"]


def test_a_task_without_database_is_not_sent_silently(plain_broker: str) -> None:
    """What the task's own code sends without a transaction is refused, in a worker as elsewhere."""
    shop = make_shop(plain_broker)

    @shop.app.task(name="shop.careless", shared=False)
    def careless() -> None:
        shop.add.delay(1, 0)

    state, error = deliver(shop.app, "shop.careless")

    assert state == "FAILURE"
    assert isinstance(error.exception, NoTransaction)
    assert arrived(plain_broker) == []


@pytest.mark.parametrize(("runner", "arguments"), [("map", [1]), ("starmap", [(1,)])])
def test_tasks_that_run_within_another(
    plain_broker: str, runner: str, arguments: list[object]
) -> None:
    """Nor is what tasks send that celery.map runs, or celery.starmap, which chunks come to."""
    shop = make_shop(plain_broker)

    @shop.app.task(name="shop.careless", shared=False)
    def careless(number: int) -> None:
        shop.add.delay(number, 0)

    state, error = deliver(shop.app, f"celery.{runner}", careless.s(), arguments)

    assert state == "FAILURE"
    assert isinstance(error.exception, NoTransaction)
    assert arrived(plain_broker) == []


def test_outside_a_worker(plain_broker: str) -> None:
    """Nothing goes directly from a web process, whatever parent it names, nor of an eager task."""
    shop = make_shop(plain_broker)
    with pytest.raises(NoTransaction):
        shop.add.apply_async((1, 0), parent_id="p")
    with pytest.raises(NoTransaction):
        shop.add.apply((1, 0), link=shop.add.s(1))
    assert arrived(plain_broker) == []

    dispatch_of(shop.app).begin_work()
    shop.add.apply_async((1, 0), parent_id="p")
    with pytest.raises(NoTransaction):
        shop.add.apply((1, 0), link=shop.add.s(1))
    assert arrived(plain_broker) == ["shop.add"]


@pytest.mark.parametrize(("url", "warnings"), [(None, 1), ("postgresql://h/db", 0)])
def test_warns_at_start(
    url: str | None,
    warnings: int,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trap: str,
) -> None:
    """A worker without a database URL says once, at its start, what that means."""
    # A worker forbids its whole process to wait for results; the patch takes that back.
    monkeypatch.setattr(_state, "_task_join_will_block", False)
    shop = make_shop(trap, outbox_database_url=url)
    with caplog.at_level(logging.WARNING, "celery_outbox"):
        shop.app.WorkController(pool_cls="solo", hostname="w@h")

    assert len([r for r in caplog.records if "OUTBOX_DATABASE_URL" in r.message]) == warnings


WRONG: dict[str, dict[str, str]] = {
    "OUTBOX_DATABASE_URL": {"outbox_database_url": "postgresql+psycopg://h/db"},
    "OUTBOX_SCHEMA": {"outbox_schema": "two words"},
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("start", [signals.worker_init.send, signals.beat_init.send])
def test_a_wrong_setting_stops_the_start(trap: str, start: Any, name: str) -> None:
    """Of a worker and of beat, with a message that names it: not the first send, days later."""
    shop = make_shop(trap, **WRONG[name])
    with pytest.raises(SystemExit, match=name):
        start(sender=Mock(app=shop.app))


def test_a_missing_driver_stops_the_start(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So does a database URL without the psycopg that it needs."""
    monkeypatch.setitem(sys.modules, "celery_outbox.stores.standalone", None)
    shop = make_shop(trap, outbox_database_url="postgresql://h/db")
    with pytest.raises(SystemExit, match=r"OUTBOX_DATABASE_URL.* 'celery-outbox\[psycopg\]"):
        signals.worker_init.send(sender=Mock(app=shop.app))


def test_beat(trap: str, database: str, stored: Stored) -> None:
    """Beat writes rows, and does not connect to the broker."""
    schedule = {"tick": {"task": "shop.add", "schedule": 0.01, "args": (1, 0)}}
    shop = make_shop(trap, outbox_database_url=database, beat_schedule=schedule)
    service = Service(shop.app, scheduler_cls=Scheduler)
    signals.beat_init.send(sender=service)
    for entry in service.scheduler.schedule.values():
        service.scheduler.apply_entry(entry, producer=service.scheduler.producer)

    assert stored.args() == [1]
