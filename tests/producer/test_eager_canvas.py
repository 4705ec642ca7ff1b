"""An eager chain, group or chord sent in a `transaction()` block waits whole for its commit."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import GroupResult

from celery_outbox import OutboxCelery
from tests.producer.conftest import Connection
from tests.producer.eager_app import app as app
from tests.producer.eager_app import note as note
from tests.producer.eager_app import open_connection as open_connection
from tests.producer.eager_app import ran as ran


@pytest.fixture
def tell_id(app: OutboxCelery) -> Any:
    """A task that returns its own id, whatever it is given."""

    @app.task(name="tell_id", bind=True, shared=False)
    def tell_id(self: Any, *_: Any) -> str:
        return str(self.request.id)

    return tell_id


def test_canvas(app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection) -> None:
    """Chains, groups and chords wait as a whole, and have their results afterwards."""
    with app.outbox.transaction(open_connection):
        results = [
            chain(note.s(1), note.s()).delay(),
            group(note.s(2), note.s(3)).delay(),
            chord([note.s(4)], note.s()).delay(),
        ]
        assert ran == []

    assert ran == [1, 1, 2, 3, 4, [4]]
    assert [result.get() for result in results] == [1, [2, 3], [4]]


CANVASES: dict[str, Callable[[Any], Any]] = {
    "a chain of groups": lambda n: chain(n.s(1), group(n.s(), n.si(2)), n.s()),
    "a chain that ends in a group": lambda n: chain(n.s(1), n.s(), group(n.s(), n.si(3))),
    "a group of chains": lambda n: group(chain(n.s(1), n.s()), chain(n.s(2), n.si(3)), n.s(4)),
    "groups in groups": lambda n: group(n.s(1), group(n.s(2), group(n.s(3), n.s(4)))),
    "a group of groups in chains": lambda n: group(chain(n.s(1), group(n.s(), n.s()))),
    "a chord of chains": lambda n: chord([chain(n.s(1), n.s()), n.s(2)], n.s()),
    "a chord whose body is a chain": lambda n: chord([n.s(1)], chain(n.s(), n.s())),
    "a chord whose body is a group": lambda n: chord([n.s(1)], group(n.s(), n.si(2))),
    "a chain of chords": lambda n: chain(n.s(1), chord([n.s(), n.si(2)], n.s()), n.s()),
    "group | task": lambda n: group(n.s(1), n.s(2)) | n.s(),
    "chain | group | task": lambda n: n.s(1) | group(n.s(), n.si(2)) | n.s() | n.s(),
    "chains in chains": lambda n: chain(chain(n.s(1), n.s()), chain(n.s(), chain(n.s()))),
    "a generator": lambda n: group(n.s(each) for each in range(3)),
    "chunks": lambda n: n.chunks([(1,), (2,), (3,)], 2),
    "a map": lambda n: n.map([1, 2]),
    "links": lambda n: chain(n.s(1).on_error(n.si(9)), n.s()).set(link=n.si(8)),
    "one": lambda n: chain(n.s(1)),
    "an empty group in a chain": lambda n: chain(n.s(1), group([]), n.s()),
}


@pytest.mark.parametrize("name", CANVASES)
def test_is_as_in_plain_celery(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection, name: str
) -> None:
    """The same runs, and comes to the same."""

    def came_to(result: Any) -> Any:
        if isinstance(result, GroupResult):
            return [came_to(each) for each in result.results or ()]
        return None if result is None else (result.state, result.get(propagate=False))

    plain = came_to(CANVASES[name](note).apply_async())
    there = [*ran]
    ran.clear()
    with app.outbox.transaction(open_connection):
        result = CANVASES[name](note).apply_async()
        assert ran == []
    assert (came_to(result), ran) == (plain, there)


def test_ids(app: OutboxCelery, tell_id: Any, open_connection: Connection) -> None:
    """Are known at once, and are those of the tasks that run."""
    with app.outbox.transaction(open_connection):
        line: Any = chain(tell_id.s(), tell_id.s(), tell_id.s()).delay()
        some: Any = group(tell_id.s(), chain(tell_id.s(), tell_id.s()), group(tell_id.s())).delay()
        joined = chord([tell_id.s(), tell_id.s()], tell_id.s()).delay()
        fanned: Any = chain(tell_id.s(), group(tell_id.s(), tell_id.s())).delay()
        named = chain(tell_id.s(), tell_id.s()).apply_async(task_id="named")
        ids = [line.id, line.parent.id, line.parent.parent.id, joined.id, fanned.parent.id]
        inner = [each.id for each in (*some.results, *fanned.results)]
        assert named.id == "named"
        assert some.id
        repr((line, some, joined, fanned))

    assert [line.get(), line.parent.get(), line.parent.parent.get()] == ids[:3]
    assert [joined.get(), fanned.parent.get(), named.get()] == [*ids[3:], "named"]
    assert [*some.get(), *fanned.get()] == inner
    assert len({*ids, *inner}) == 10


def test_looking_runs_nothing(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """But for what only the tasks know."""
    with app.outbox.transaction(open_connection):
        some: Any = group(note.s(1), note.s(2)).delay()
        line: Any = chain(note.s(3), note.s()).delay()
        assert isinstance(some, GroupResult)
        names = [each.name for each in some.results or ()]
        assert (names, line.task_id) == (["note", "note"], line.id)
        assert f"{some!r} {some} {line!r} {line}"
        assert line.ready()
        assert ran == []

        assert line.get() == 3
        assert ran == [3, 3]
        assert some.successful()
        assert ran == [3, 3, 1, 2]

    assert ran == [3, 3, 1, 2]


def test_arguments_are_those_of_the_send(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """Of every task in it, of its links, and what the canvas itself is called with."""
    argument: Any = [1]
    tasks = [note.s(argument)]
    step = note.si(argument)
    step.link(note.si(argument))
    with app.outbox.transaction(open_connection):
        group(tasks).delay()
        chain(note.s(), step).apply_async((argument,))
        chord([note.s(argument)], note.si(argument)).delay()
        group(note.si(argument) for _ in range(2)).delay()
        argument.append(2)
        tasks.append(note.s("more"))
        step.set(link=[])

    assert ran == [[1]] * 8
    assert argument == [1, 2]


def test_the_same_canvas_twice(
    app: OutboxCelery, tell_id: Any, open_connection: Connection
) -> None:
    """Has other ids each time."""
    canvas = chain(tell_id.s(), tell_id.s())
    with app.outbox.transaction(open_connection):
        results = [canvas.delay(), canvas.delay()]
        ids = {each.id for each in results}
    assert (len(ids), {each.get() for each in results}) == (2, ids)


def test_does_not_run_after_a_rollback(
    app: OutboxCelery, note: Any, ran: list[Any], open_connection: Connection
) -> None:
    """And every result says so."""
    with suppress(KeyError), app.outbox.transaction(open_connection):
        some: Any = group(note.s(1), note.s(2)).delay()
        line: Any = chain(note.s(3), note.s()).delay()
        raise KeyError

    assert [each.state for each in (*some.results, line, line.parent)] == ["REVOKED"] * 4
    for result in (some, line):
        with pytest.raises(TaskRevokedError, match=r"note did not run: .* rolled back"):
            result.get()
    assert ran == []


@pytest.mark.parametrize("propagates", [False, True])
def test_an_error(
    app: OutboxCelery,
    note: Any,
    ran: list[Any],
    open_connection: Connection,
    propagates: bool,
) -> None:
    """Of a step is raised where the block ends, as by a chain that is sent without one."""
    app.conf.task_eager_propagates = propagates
    results: list[Any] = []

    def send() -> None:
        with app.outbox.transaction(open_connection):
            results.append(chain(note.s(1), note.si("bad"), note.s()).delay())
            results.append(note.delay(2))

    with pytest.raises(KeyError, match="bad"):
        send()
    line, other = results

    assert ran == [1, "bad", 2]
    assert [line.state, line.parent.state, line.parent.parent.state, other.state] == [
        "FAILURE", "FAILURE", "SUCCESS", "SUCCESS",
    ]  # fmt: skip


def test_then(app: OutboxCelery, note: Any, open_connection: Connection) -> None:
    """What waits for the result of a task in it is called with that."""
    told: list[Any] = []
    with app.outbox.transaction(open_connection):
        some: Any = group(note.s(1), note.s(2)).delay()
        some.results[1].then(lambda result: told.append(result.result))
    assert told == [2]


def test_what_celery_refuses(app: OutboxCelery, note: Any, open_connection: Connection) -> None:
    """Is refused where it is sent."""
    with app.outbox.transaction(open_connection), pytest.raises(TypeError, match="use a chord"):
        group(note.s(1)).apply_async(link=note.s())


def test_empty(app: OutboxCelery, open_connection: Connection) -> None:
    """Ones have the results that Celery gives them."""
    with app.outbox.transaction(open_connection):
        assert chain(app=app).apply_async() is None
        empty: Any = group([], app=app).apply_async()
        assert empty.results == []


def test_asynchronous(app: OutboxCelery, note: Any, ran: list[Any], database: str) -> None:
    """Ones wait for the commit of `async with`, with what send_many has sent."""

    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            async with app.outbox.transaction(connection):
                line = chain(note.s(1), note.s()).delay()
                app.outbox.send_many(note, [(2,), (3,)])
                assert ran == []
            assert (ran, line.get()) == ([1, 1, 2, 3], 1)

    asyncio.run(main())
