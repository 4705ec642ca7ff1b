"""Every canvas is captured as Celery sends it: what comes first now, the rest inside it."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Timer
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from tests.fixtures.valkey import OwnValkey
from tests.producer.conftest import Connection, Shop, Stored, make_shop

ADD, TOTAL = "shop.add", "shop.total"
UNLOCK = "celery.chord_unlock"

CANVAS: dict[str, tuple[Callable[[Shop], Any], list[str]]] = {
    "delay": (lambda s: s.add.delay(1, 2), [ADD]),
    "apply_async": (lambda s: s.add.apply_async((1, 2)), [ADD]),
    "signature": (lambda s: s.add.s(1, 2).delay(), [ADD]),
    "send_task": (lambda s: s.app.send_task("elsewhere", (1,)), ["elsewhere"]),
    "link": (lambda s: s.add.apply_async((1, 2), link=s.add.s(3)), [ADD]),
    "link_error": (lambda s: s.add.apply_async((1, 2), link_error=s.complain.s()), [ADD]),
    "chain": (lambda s: chain(s.add.s(1, 2), s.add.s(3), s.add.s(4)).delay(), [ADD]),
    "group": (lambda s: group(s.add.s(i, i) for i in range(3)).delay(), [ADD] * 3),
    "chord": (lambda s: chord([s.add.s(1, 1), s.add.s(2, 2)])(s.total.s()), [ADD, ADD, UNLOCK]),
    "chain, chord, chain": (
        lambda s: (
            s.add.s(1, 1) | group(s.add.s(1), s.add.s(2)) | s.total.s() | s.add.s(9)
        ).delay(),
        [ADD],
    ),
    "group of chains": (
        lambda s: group(s.add.s(1, 1) | s.add.s(2), s.add.s(3, 3) | s.add.s(4)).delay(),
        [ADD, ADD],
    ),
    "chunks": (
        lambda s: s.add.chunks([(i, i) for i in range(4)], 2).apply_async(),
        ["celery.starmap"] * 2,
    ),
    "starmap": (lambda s: s.add.starmap([(1, 2), (3, 4)]).delay(), ["celery.starmap"]),
    "map": (lambda s: s.total.map([[1], [2]]).delay(), ["celery.map"]),
}


@pytest.fixture
def canvas_shop(trap: str) -> Shop:
    """An app with a result backend that needs no server, as chords want one."""
    return make_shop(trap, result_backend="cache+memory://")


@pytest.mark.parametrize("case", CANVAS)
def test_captured(canvas_shop: Shop, connection: Connection, stored: Stored, case: str) -> None:
    """The rows are those of the first messages, in order, with the id of the result."""
    send, tasks = CANVAS[case]
    with connection, canvas_shop.app.outbox.using(connection):
        result = send(canvas_shop)
    rows = stored.rows()

    assert [row.task for row in rows] == [task for task in tasks if task != UNLOCK]
    if len(tasks) == 1 and case != "chain" and "chord" not in case:
        assert rows[0].message_id == result.id


@pytest.mark.parametrize("case", CANVAS)
def test_rolled_back(canvas_shop: Shop, connection: Connection, stored: Stored, case: str) -> None:
    """A rollback leaves no row of any of them."""
    send, _ = CANVAS[case]
    with canvas_shop.app.outbox.using(connection):
        send(canvas_shop)
    connection.rollback()

    assert stored.rows() == []


def test_chord_without_native_join(trap: str, connection: Connection, stored: Stored) -> None:
    """With a backend that cannot count a chord, the task that polls for it is captured too."""
    shop = make_shop(trap, result_backend="file:///tmp")
    with connection, shop.app.outbox.using(connection):
        chord([shop.add.s(1, 1), shop.add.s(2, 2)])(shop.total.s())

    assert sorted(row.task for row in stored.rows()) == [UNLOCK, ADD, ADD]


@pytest.mark.parametrize("backend", ["cache+memory://", "file:///tmp"])
@pytest.mark.parametrize("kind", [Session, psycopg.connect])
def test_a_chord_of_one_call(
    trap: str, database: str, stored: Stored, backend: str, kind: Any
) -> None:
    """`outbox=` of a chord names the transaction of all of it, and is no option of its body."""
    shop = make_shop(trap, result_backend=backend)
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    whole = chord([shop.add.s(1, 1), shop.add.s(2, 2)], shop.total.s(), app=shop.app)
    with kind(engine if kind is Session else database) as target:
        (shop.add.s(0, 0) | whole).apply_async(outbox=target)
        whole.apply_async(outbox=target)
        assert stored.rows() == []
        target.commit()
    engine.dispose()
    rows = stored.rows()

    assert [row.task for row in rows if row.task != UNLOCK] == [ADD, ADD, ADD]
    assert not any(b'"outbox"' in row.body for row in rows)


@pytest.mark.parametrize(
    "kind", ["task", "chain", "chord", "chain that becomes a chord", "chunks", "group of chunks"]
)
def test_the_transaction_is_set(
    trap: str, database: str, connection: Connection, stored: Stored, kind: str
) -> None:
    """`.set(outbox=...)` is what the same option of apply_async is, never a row apart."""
    shop = make_shop(trap, result_backend="cache+memory://", outbox_database_url=database)
    header = [shop.add.s(1, 1), shop.add.s(2, 2)]
    whole: Any = {
        "task": shop.add.s(1, 1),
        "chain": shop.add.s(1, 1) | shop.add.s(2),
        "chord": chord(header, shop.total.s()),
        "chain that becomes a chord": chain(group(header), shop.total.s()),
        "chunks": shop.add.chunks([(1, 1), (2, 2), (3, 3)], 2),
        "group of chunks": shop.add.chunks([(1, 1), (2, 2), (3, 3)], 2),
    }[kind]
    whole.set(outbox=connection, ordering_key="a")
    (whole.group() if kind == "group of chunks" else whole).delay()
    assert stored.rows() == []
    connection.commit()

    single = kind in ("task", "chain")
    expected = "celery.starmap" if "chunks" in kind else ADD
    assert [row.task for row in stored.rows()] == [expected] * (1 if single else 2)
    assert {row.ordering_key for row in stored.rows()} == {"a"}
    assert not any(b'"outbox"' in row.body for row in stored.rows())


@pytest.mark.parametrize("backend", ["redis://127.0.0.1:1/0", "rpc://"])
def test_result_backend_away(
    trap: str, connection: Connection, stored: Stored, database: str, backend: str
) -> None:
    """No result backend is asked when a task is stored, however it is stored."""
    shop = make_shop(trap, result_backend=backend, outbox_database_url=database)
    shop.add.delay(1, 0)
    shop.add.apply_async((2, 0), outbox=connection)
    with shop.app.outbox.using(connection):
        shop.add.delay(3, 0)
        chain(shop.add.s(4, 0), shop.add.s(5)).delay()
    connection.commit()

    assert stored.args() == [1, 2, 3, 4]


def test_group_while_redis_is_away(
    trap: str, connection: Connection, stored: Stored, own_valkey: OwnValkey
) -> None:
    """A group is sent while its result backend is down, and its results are read afterwards."""
    valkey = own_valkey()
    shop = make_shop(trap, result_backend=valkey.url)
    valkey.kill()
    with connection, shop.app.outbox.using(connection):
        result = group(shop.add.s(i, i) for i in range(3)).delay()
    valkey.start()
    ids = [row.message_id for row in stored.rows()]

    def finish(number: int) -> None:
        shop.app.backend.store_result(ids[number], 2 * number, "SUCCESS")

    finish(0)
    with ThreadPoolExecutor(1) as worker:  # the others while get() waits
        worker.map(finish, [1, 2])

        assert result.get(timeout=60) == [0, 2, 4]


@pytest.fixture
def remembering(trap: str, valkey_url: str) -> Shop:
    """An app whose results are kept in Redis."""
    return make_shop(trap, result_backend=valkey_url)


def test_a_second_group_with_the_same_tasks(remembering: Shop, connection: Connection) -> None:
    """Each of two groups of the same task ids is told of their results."""
    tasks = [remembering.add.s(i, i).set(task_id=f"task-{i}") for i in range(2)]
    with connection, remembering.app.outbox.using(connection):
        first, second = (group(tasks, app=remembering.app).delay() for _ in range(2))
    for number in range(2):
        remembering.app.backend.store_result(f"task-{number}", 2 * number, "SUCCESS")

    assert first.get(timeout=20) == second.get(timeout=20) == [0, 2]


@pytest.mark.parametrize("finished", ["before", "meanwhile"])
def test_what_a_group_then_does(remembering: Shop, connection: Connection, finished: str) -> None:
    """GroupResult.then is called while any other result is waited for."""
    called: list[Any] = []
    with connection, remembering.app.outbox.using(connection):
        result = group(remembering.add.s(i, i) for i in range(2)).delay()
        other = remembering.add.delay(5, 5)
    result.then(called.append)
    parts: Any = result  # celery-types knows no result of a group

    def finish() -> None:
        for number, one in enumerate([*parts.results, other]):
            remembering.app.backend.store_result(one.id, number, "SUCCESS")

    if finished == "before":
        finish()
        assert other.get(timeout=20) == 2
    else:
        timer = Timer(0.1, finish)
        timer.start()
        assert other.get(timeout=20) == 2
        timer.join()

    assert called == [result]


def test_results_that_were_read_need_redis_no_more(
    trap: str, connection: Connection, own_valkey: OwnValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are collected while it is away and do not ask for it, whatever the program does."""
    valkey = own_valkey()
    shop = make_shop(trap, result_backend=valkey.url)
    with connection, shop.app.outbox.using(connection):
        results = [shop.add.delay(1, 2) for _ in range(3)]
    for result in results:
        shop.app.backend.store_result(result.id, 3, "SUCCESS")
        assert result.get(timeout=60) == 3
    valkey.kill()
    asked: list[object] = []
    for name in ("connect", "send_packed_command"):
        method = f"redis.connection.AbstractConnection.{name}"
        monkeypatch.setattr(method, lambda *args, **_: asked.append(args[0]))
    del result, results
    gc.collect()

    assert asked == []


def test_eager(trap: str, connection: Connection, stored: Stored) -> None:
    """With task_always_eager tasks run in process and no row is written."""
    shop = make_shop(trap, task_always_eager=True)
    with connection, shop.app.outbox.using(connection):
        assert shop.add.delay(1, 2).get() == 3

    assert stored.rows() == []


@pytest.mark.parametrize("broker", [None, "amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0"])
def test_needs_no_broker(
    broker: str | None, connection: Connection, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no broker configured, or one that is down, sending is the same, eta included."""
    monkeypatch.setattr("kombu.Connection.ensure_connection", pytest.fail)
    shop = make_shop(broker)
    with connection, shop.app.outbox.using(connection):
        shop.add.delay(1, 0)
        shop.add.apply_async((2, 0), countdown=5, retry=True)

    assert stored.args() == [1, 2]
