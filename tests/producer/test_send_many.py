"""`send_many` stores, field for field, what a loop of `apply_async` stores; only faster."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Thread
from typing import Any, Final

import pytest
from celery import Task, chord, group, signals, signature
from celery.app.trace import build_tracer
from kombu import Connection as Broker
from kombu import Exchange, Queue
from kombu.serialization import register, unregister

from celery_outbox import (
    NoTransaction,
    OutboxCelery,
    OutboxClosed,
    UnpublishableMessage,
    UnsupportedOption,
)
from celery_outbox.many import sending
from celery_outbox.statements import commands
from tests.producer.conftest import Connection, Shop, Stored, make_shop

NOW: Final = datetime(2039, 12, 1, tzinfo=UTC)
LATER: Final = datetime(2040, 1, 1, tzinfo=UTC)

#: One of each kind of argument that is shown or serialised in a way of its own.
CALLS: Final[list[tuple[Any, ...]]] = [
    (1, 2),
    (3, 4),
    (5, 6.5),
    (True, None),
    ("text", 'it\'s "quoted" \\ é \N{PILE OF POO} 100% %s %(id)s'),
    ("a NUL \0", "half a pair \ud800"),
    ("x" * 1020, "y"),
    ("x" * 3000, "many words " * 300),
    ("", ()),
    ([1, [2, [3, [4, [5]]]]], {"a": {"b": {"c": {}}}}),
    (datetime(2030, 1, 1, tzinfo=UTC), b"bytes"),
    (2**80, -1e300),
    ((), {"x": 7, "y": 8}),
    ((9,), {"y": "it's"}),
    ((1, 2), {}),
    (1, 2),
]
PLAIN: Final = [*CALLS[:10], *CALLS[12:]]

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "none": {},
    "queue": {"queue": "letters"},
    "route": {"exchange": Exchange("post", "topic"), "routing_key": "letter.x"},
    "eta and expires": {"eta": LATER, "expires": LATER},
    "countdown and seconds": {"countdown": 30, "expires": 60},
    "priority": {"priority": 3},
    "compression": {"compression": "gzip"},
    "pickle": {"serializer": "pickle"},
    "yaml": {"serializer": "yaml"},
    "not UTF-8": {"serializer": "western"},
    "headers": {"headers": {"tenant": "é 100%", "deep": {"id": 1, "list": [None, 1.5]}}},
    "limits": {"time_limit": 30, "soft_time_limit": 10.5},
    "shadow": {"shadow": "shown as this"},
    "ignored result": {"ignore_result": True},
    "transient": {"delivery_mode": "transient"},
    "ordering key": {"ordering_key": "order-42"},
    "links": {"link": signature("a.b", (1,)), "link_error": signature("c.d")},
    "a group as link": {"link": group(signature("a.b"), signature("c.d"))},
    "a chord as link": {"link": chord([signature("a.b")], signature("c.d"))},
    "a property": {"reply_to": "somewhere"},
    "stamps": {"stamped_headers": ["who"], "who": ["me"]},
    "a long header": {"headers": {"long": "x" * 40_000}},
}


@pytest.fixture(autouse=True)
def western() -> Iterator[None]:
    """A serialiser that makes text which is not UTF-8."""
    register("western", repr, eval, "text/x-western", "latin-1")
    yield
    unregister("western")


def whatever(app: OutboxCelery) -> Any:
    """A task that takes any arguments."""

    @app.task(name="shop.whatever", shared=False)
    def task(*args: Any, **kwargs: Any) -> None: ...

    return task


#: Every column but those that no two rows share, JSON to the letter.
FIELDS: Final = """
SELECT message_id, task, exchange, routing_key, headers::text, properties::text, body, content_type,
       content_encoding, mandatory, declare::text, available_at, expires_at, ordering_key, dedup_key
FROM outbox.message ORDER BY id
"""


def pair(call: Any) -> Any:
    """Return the arguments of a call as apply_async takes them."""
    match call:
        case (tuple(), dict()):
            return call
    return call, {}


def same(
    shop: Shop, connection: Connection, stored: Stored, calls: list[Any], task: Any, **options: Any
) -> None:
    """Send both ways at one moment, and compare what is stored."""
    shop.app.now = lambda: NOW  # type: ignore[method-assign]  # for what is counted from now
    with shop.app.outbox.transaction(connection):
        ids = [*shop.app.outbox.send_many(task, iter(calls), **options)]
    with shop.app.outbox.transaction(connection):
        for task_id, call in zip(ids, calls, strict=True):
            args, kwargs = pair(call)
            if isinstance(task, str):
                shop.app.send_task(task, args, kwargs, task_id=task_id, **options)
            else:
                task.apply_async(args, kwargs, task_id=task_id, **options)
    rows = [tuple(row) for row in stored.fetch(FIELDS)]

    assert [row[0] for row in rows] == ids * 2
    assert rows[: len(ids)] == rows[len(ids) :]


@pytest.mark.parametrize("name", OPTIONS)
def test_byte_for_byte(
    shop: Shop, connection: Connection, stored: Stored, alike: list[int], name: str
) -> None:
    """Whatever the options, and whether or not they allow for a pattern."""
    shop.app.conf.task_queues = [
        Queue("celery", Exchange("celery"), "celery"),
        Queue("letters", Exchange("post", "topic"), "letter.#", max_priority=9),
    ]
    options = OPTIONS[name]
    calls = CALLS
    if options.get("serializer") in ("yaml", "western"):
        calls = [call for call in PLAIN if "\\U" not in ascii(call)]
    same(shop, connection, stored, calls, whatever(shop.app), **options)

    by_pattern = name not in ("a property", "stamps", "a long header")
    assert sum(alike) == (len(calls) - 2 if by_pattern else 0)


@pytest.mark.parametrize("settings", [
    {"task_serializer": "pickle"},
    {"task_compression": "zlib"},
    {"task_routes": {"shop.*": {"queue": "routed", "priority": 2}}},
    {"task_default_delivery_mode": "transient"},
    {"task_default_priority": 4},
    {"task_ignore_result": True},
    {"result_backend": "rpc://"},
    {"enable_utc": False, "timezone": "Asia/Tokyo"},
    {"task_protocol": 1},
], ids=str)  # fmt: skip
def test_settings(
    trap: str, connection: Connection, stored: Stored, settings: dict[str, Any]
) -> None:
    """As the app is configured."""
    shop = make_shop(trap, **settings)
    same(shop, connection, stored, PLAIN, whatever(shop.app), eta=LATER)


def test_by_name(shop: Shop, connection: Connection, stored: Stored, alike: list[int]) -> None:
    """A task that this app does not have, as with send_task."""
    same(shop, connection, stored, CALLS, "elsewhere.task", queue="other")
    assert sum(alike) == len(CALLS) - 2


def test_portions(
    shop: Shop,
    connection: Connection,
    stored: Stored,
    alike: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each pattern serves some messages, and is learned anew; everything keeps its order."""
    monkeypatch.setattr(sending, "FOLLOWERS", 4)
    calls: list[Any] = [(number, 0) for number in range(15)]
    same(shop, connection, stored, calls, shop.add)
    assert alike == [4, 4, 1]


def test_what_is_buffered_is_bounded(
    shop: Shop, connection: Connection, alike: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the number of messages, or by their bytes, whichever comes first."""
    monkeypatch.setattr(commands, "PORTION", 4)
    with shop.app.outbox.transaction(connection):
        shop.app.outbox.send_many(shop.add, [(number, 0) for number in range(12)])
        assert alike == [2, 4, 4]

        monkeypatch.setattr(commands, "MAX_BYTES", 3000)
        shop.app.outbox.send_many(shop.add, [("x" * 900, 0)] * 6)
        assert alike == [2, 4, 4, 2, 2]


def test_a_countdown(shop: Shop, connection: Connection, stored: Stored, alike: list[int]) -> None:
    """Is counted from when a portion is sent, and expiry likewise."""
    with connection, shop.app.outbox.using(connection):
        before = datetime.now(UTC)
        shop.app.outbox.send_many(shop.add, [(1, 2)] * 5, countdown=60, expires=120)
        after = datetime.now(UTC)
    rows = stored.rows()

    assert alike == [3]
    assert all((row.available_at - before).total_seconds() >= 60 for row in rows)
    assert all((row.available_at - after).total_seconds() <= 60 for row in rows)
    assert {row.headers["eta"] for row in rows[1:]} == {rows[1].headers["eta"]}
    assert all(row.expires_at > row.available_at for row in rows)


def test_ids(shop: Shop, connection: Connection, stored: Stored) -> None:
    """They are a sequence, in order, and take little memory."""
    with connection, shop.app.outbox.using(connection):
        ids: Any = shop.app.outbox.send_many(shop.add, ((number, 0) for number in range(5)))
    expected = [row.message_id for row in stored.rows()]

    assert (len(ids), [*ids], ids[-1], ids[1:3]) == (5, expected, expected[-1], expected[1:3])
    assert expected[2] in ids
    with pytest.raises(IndexError):
        ids[5]
    assert repr(ids) == "<5 task ids>"
    assert [*shop.app.outbox.send_many(shop.add, [])] == []


def test_deduplication(shop: Shop, connection: Connection, stored: Stored) -> None:
    """One is stored, and all ids are its."""
    with connection, shop.app.outbox.using(connection):
        ids = shop.app.outbox.send_many(shop.add, [(1, 2), (3, 4), (5, 6)], dedup_key="k")
    (row,) = stored.rows()
    assert [*ids] == [row.message_id] * 3


def test_ids_of_ones_own(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A class of tasks may choose them, whatever they look like, or return nothing at all."""

    class Own(Task):  # type: ignore[type-arg]  # Celery 5.4 takes none
        def apply_async(self, args: Any = None, *rest: Any, **options: Any) -> Any:
            sent = super().apply_async(args, *rest, **{**options, "task_id": args[0]})
            return None if args[0] == "none" else sent

    task = shop.app.task(base=Own, name="own", shared=False)(identity)
    chosen = ["invoice-1", "abcd", "0" * 32, "12345678-1234-1234-1234-123456789abc", "none"]
    with connection, shop.app.outbox.using(connection):
        ids = shop.app.outbox.send_many(task, [(each,) for each in chosen])

    assert [row.message_id for row in stored.rows()] == chosen
    assert [*ids] == [*chosen[:-1], ""]


def test_threads(
    shop: Shop, connection: Connection, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That share a connection lose nothing, and each keeps its order."""
    monkeypatch.setattr(sending, "FOLLOWERS", 50)
    monkeypatch.setattr(commands, "PORTION", 70)

    def send(number: int) -> list[str]:
        calls = ((number * 1000 + each, 0) for each in range(500))
        return [*shop.app.outbox.send_many(shop.add, calls, outbox=connection)]

    with ThreadPoolExecutor(4) as pool:
        sent = [*pool.map(send, range(4))]
    connection.commit()
    rows = stored.fetch(
        "SELECT message_id, convert_from(body, 'UTF8')::json -> 0 -> 0 AS n"
        " FROM outbox.message ORDER BY id"
    )
    for number, ids in enumerate(sent):
        mine = [row for row in rows if row.n // 1000 == number]
        assert [row.message_id for row in mine] == ids
        assert [row.n for row in mine] == [*range(number * 1000, number * 1000 + 500)]


def test_signals(shop: Shop, connection: Connection, stored: Stored, alike: list[int]) -> None:
    """A receiver hears of every single task, and what it changes is stored."""

    def receive(headers: dict[str, Any], body: Any, **_: Any) -> None:
        headers["seen"] = body[0][0]

    signals.before_task_publish.connect(receive)
    try:
        with connection, shop.app.outbox.using(connection):
            shop.app.outbox.send_many(shop.add, [(number, 0) for number in range(5)])
    finally:
        signals.before_task_publish.disconnect(receive)

    assert [row.headers["seen"] for row in stored.rows()] == [0, 1, 2, 3, 4]
    assert alike == []


def identity(x: int) -> int:
    """The body of a task."""
    return x


def overriding(app: OutboxCelery) -> tuple[Any, Callable[[], int]]:
    """A task of a class with an apply_async of its own, and how often that was called."""
    calls: list[Any] = []

    class Own(Task):  # type: ignore[type-arg]  # Celery 5.4 takes none
        def apply_async(self, *args: Any, **options: Any) -> Any:
            calls.append(args)
            return super().apply_async(*args, **options)

    return app.task(base=Own, name="own", shared=False)(identity), lambda: len(calls)


def shadowing(app: OutboxCelery) -> tuple[Any, Callable[[], int]]:
    """A task that names itself by its arguments, and how often it did."""
    calls: list[Any] = []

    class Own(Task):  # type: ignore[type-arg]  # Celery 5.4 takes none
        def shadow_name(self, args: Any, *_: Any) -> Any:
            calls.append(args)
            return f"own {args[0]}"

    return app.task(base=Own, name="own", shared=False)(identity), lambda: len(calls)


def routed(app: OutboxCelery) -> tuple[Any, Callable[[], int]]:
    """A task that is routed by its arguments, and how often it was."""
    calls: list[Any] = []

    def route(name: str, args: Any, *_: Any, **__: Any) -> Any:
        calls.append(args)
        return {"queue": f"queue-{args[0]}"}

    app.conf.task_routes = (route,)
    return app.task(name="own", shared=False)(identity), lambda: len(calls)


def replaced(app: OutboxCelery) -> tuple[Any, Callable[[], int]]:
    """A task some of which somebody replaced on the object, as tests do."""
    calls: list[Any] = []
    task: Any = app.task(name="own", shared=False)(identity)
    app.finalize()
    task = app.tasks["own"]
    original = task.apply_async

    def apply_async(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return original(*args, **options)

    task.apply_async = apply_async
    return task, lambda: len(calls)


@pytest.mark.parametrize("make", [overriding, shadowing, routed, replaced])
def test_what_has_a_say_is_asked_each_time(
    shop: Shop, connection: Connection, stored: Stored, alike: list[int], make: Any
) -> None:
    """An own class of tasks, a router that is code, what somebody put in Celery's place."""
    task, called = make(shop.app)
    with connection, shop.app.outbox.using(connection):
        shop.app.outbox.send_many(task, [(number,) for number in range(5)])

    assert (called(), len(stored.rows()), alike) == (5, 5, [])


@pytest.mark.parametrize("owner", ["Producer.publish", "Celery.send_task", "Task.apply_async"])
def test_an_agent_sees_each_send(
    shop: Shop, connection: Connection, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    """One that put a function of its own in the place of Celery's or kombu's."""
    import celery
    import kombu

    kind, name = owner.split(".")
    place = {"Producer": kombu.Producer, "Celery": celery.Celery, "Task": celery.Task}[kind]
    original = getattr(place, name)
    seen: list[Any] = []

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(args)
        return original(self, *args, **options)

    monkeypatch.setattr(place, name, watched)
    with connection, shop.app.outbox.using(connection):
        shop.app.outbox.send_many(shop.add, [(number, 0) for number in range(5)])
    assert len(seen) == 5


def test_arguments_that_do_not_fit(shop: Shop, connection: Connection, stored: Stored) -> None:
    """A TypeError, as from the task; what came before it is stored, as by a loop."""
    calls: list[tuple[Any, ...]] = [(1, 2), (3, 4), (5, 6), (7,), (8, 9)]
    with connection, shop.app.outbox.using(connection), pytest.raises(TypeError, match="'y'"):
        shop.app.outbox.send_many(shop.add, calls)
    assert stored.args() == [1, 3, 5]


def test_an_error_of_whoever_yields(shop: Shop, connection: Connection, stored: Stored) -> None:
    """It comes out, and what was yielded before it is stored."""

    def calls() -> Iterator[tuple[int, int]]:
        yield from [(1, 0), (2, 0), (3, 0), (4, 0)]
        raise KeyError("mine")

    with connection, shop.app.outbox.using(connection), pytest.raises(KeyError, match="mine"):
        shop.app.outbox.send_many(shop.add, calls())
    assert stored.args() == [1, 2, 3, 4]


def test_what_cannot_be_sent(shop: Shop, connection: Connection, stored: Stored) -> None:
    """An argument no serialiser takes, or a body that is too large, in the words of a send."""
    shop.app.conf.outbox_max_body = 1000
    with connection, shop.app.outbox.using(connection):
        with pytest.raises(UnpublishableMessage, match="cannot be serialised: of type object"):
            shop.app.outbox.send_many(shop.add, [(1, 0), (2, 0), (3, 0), (object(), 0), (4, 0)])
        with pytest.raises(UnpublishableMessage, match="outbox_max_body"):
            shop.app.outbox.send_many(shop.add, [(5, 0), (6, 0), (7, 0), ("x" * 1000, 0)])
    assert stored.args() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("call", ["text", 3, None, {"a": 1}], ids=str)
def test_what_is_no_call(shop: Shop, connection: Connection, call: Any) -> None:
    """The error says which one it is, and what to give."""
    with (
        connection,
        shop.app.outbox.using(connection),
        pytest.raises(TypeError, match=r"call 1 is of type .*tuple of positional"),
    ):
        shop.app.outbox.send_many(shop.add, [(1, 2), call])


def test_refusals(shop: Shop, connection: Connection) -> None:
    """No transaction, one id for many, a connection to the broker, another app's task."""
    send_many = shop.app.outbox.send_many
    with pytest.raises(NoTransaction):
        send_many(shop.add, [(1, 2)])
    with pytest.raises(UnsupportedOption, match="task_id="):
        send_many(shop.add, [(1, 2)], outbox=connection, task_id="one")
    with pytest.raises(UnsupportedOption, match="connection="):
        send_many(shop.add, [(1, 2)], outbox=connection, connection=Broker("memory://"))
    with pytest.raises(TypeError, match="of this app"):
        send_many(make_shop(None).add, [(1, 2)], outbox=connection)
    with pytest.raises(TypeError, match="of this app"):
        send_many(shop.add.s(1, 2), [()], outbox=connection)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_block_that_ends_meanwhile(
    shop: Shop, connection: Connection, stored: Stored, elsewhere: bool
) -> None:
    """Nothing is sent to it any more, as in a loop, and nothing is lost in silence."""
    block = shop.app.outbox.using(connection)

    def end() -> None:
        block.__exit__(None, None, None)

    def calls() -> Iterator[tuple[int, int]]:
        yield from [(1, 0), (2, 0), (3, 0)]
        if elsewhere:
            thread = Thread(target=end)
            thread.start()
            thread.join()
        else:
            end()
        yield (4, 0)

    block.__enter__()
    with pytest.raises(OutboxClosed if elsewhere else NoTransaction):
        shop.app.outbox.send_many(shop.add, calls())
    connection.commit()
    assert stored.args() == [1, 2, 3]


def test_whoever_yields_uses_the_connection(
    shop: Shop, connection: Connection, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is free whenever their code runs, such as for rows that come from a cursor."""
    monkeypatch.setattr(commands, "PORTION", 3)
    with connection, shop.app.outbox.using(connection), connection.cursor("rows") as cursor:
        cursor.execute("SELECT n, 0 FROM generate_series(1, 20) AS n")
        shop.app.outbox.send_many(shop.add, cursor)
    assert stored.args() == [*range(1, 21)]


def test_arguments_that_change_later(shop: Shop, connection: Connection, stored: Stored) -> None:
    """Each call is as it was when it was yielded."""
    numbers = [0, 0]

    def calls() -> Iterator[Any]:
        for number in range(5):
            numbers[0] = number
            yield numbers

    with connection, shop.app.outbox.using(connection):
        shop.app.outbox.send_many(shop.add, calls())
    assert stored.args() == [0, 1, 2, 3, 4]


def test_eager(connection: Connection, stored: Stored) -> None:
    """Runs each at once, as Celery does."""
    shop = make_shop(None, task_always_eager=True)
    ran: list[int] = []

    @shop.app.task(name="eager", shared=False)
    def task(number: int) -> None:
        ran.append(number)

    with connection, shop.app.outbox.using(connection):
        assert len(shop.app.outbox.send_many(task, [(1,), (2,), (3,)])) == 3
    assert (ran, stored.rows()) == ([1, 2, 3], [])


def test_without_a_transaction(trap: str, database: str, stored: Stored, alike: list[int]) -> None:
    """A portion at a time is durable, in the configured database."""
    shop = make_shop(trap, outbox_database_url=database)
    shop.app.outbox.send_many(shop.add, [(number, 0) for number in range(6)])
    assert (stored.args(), alike) == ([0, 1, 2, 3, 4, 5], [4])


def test_within_a_task(shop: Shop, connection: Connection, stored: Stored) -> None:
    """They have the task as their parent, and it has them as its children, as in a loop."""
    sent: list[Any] = []

    @shop.app.task(bind=True, name="parent", shared=False)
    def parent(self: Any, add_to_parent: bool) -> None:
        with shop.app.outbox.transaction(connection):
            calls = [(number, 0) for number in range(5)]
            ids = shop.app.outbox.send_many(shop.add, calls, add_to_parent=add_to_parent)
        sent.append(([*ids], [child.id for child in self.request.children]))

    shop.app.finalize()
    trace = build_tracer("parent", shop.app.tasks["parent"], app=shop.app)
    request = {"id": "the-parent", "root_id": "the-root", "is_eager": False}
    for add_to_parent in (True, False):
        ending = trace("the-parent", [add_to_parent], {}, {**request, "called_directly": False})
        assert ending.info is None, ending.info
    rows = stored.rows()

    (first, children), (second, none) = sent
    assert [row.message_id for row in rows] == first + second
    assert (children, none) == (first, [])
    assert {(row.headers["parent_id"], row.headers["root_id"]) for row in rows} == {
        ("the-parent", "the-root")
    }
