"""`outbox.run()`: tasks that a test has sent run in its process, as a worker would run them."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from celery.exceptions import Ignore, Reject
from kombu.exceptions import ContentDisallowed
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from celery_outbox import InvalidSetting, OutboxCelery, UnusableTarget
from celery_outbox.testing import EndlessRun, FailedOnPurpose, OutboxTest, OutboxTester
from tests.producer.conftest import Connection, Shop, make_shop
from tests.producer.drivers import ASYNCHRONOUS, DJANGO, SYNCHRONOUS, Django, Driver, opened
from tests.producer.soaking import finished

pytest_plugins = ["celery_outbox.testing.plugin"]  # its fixtures, not its report

HOUR = timedelta(hours=1)


@pytest.fixture
def shop(trap: str) -> Shop:
    """An app whose broker must not be touched, nor its result backend, which is not there."""
    return make_shop(trap, result_backend="redis://127.0.0.1:1/0")


@pytest.fixture
def outbox_app(shop: Shop) -> OutboxCelery:
    """The app under test."""
    return shop.app


@pytest.fixture
def outbox_target(connection: Connection) -> Iterator[Connection]:
    """A connection with a transaction in progress, which is rolled back."""
    connection.execute("SELECT 1")
    yield connection
    connection.rollback()


@pytest.fixture(autouse=True)
def joined(request: pytest.FixtureRequest, shop: Shop, outbox_target: object) -> Iterator[None]:
    """What the test itself sends joins that transaction."""
    with shop.app.outbox.using(outbox_target):
        yield


def results(ran: Any) -> list[Any]:
    """What the tasks returned, in the order they ran in."""
    return [run.result for run in ran]


def states(ran: Any) -> list[tuple[str, str]]:
    """The task and state of each run."""
    return [(run.task, run.state) for run in ran]


def test_runs_what_was_sent(shop: Shop, outbox: OutboxTester, outbox_messages: Any) -> None:
    """With its arguments, in the order of sending; once, and then it does not wait any more."""
    first = shop.add.delay(1, 2)
    shop.add.apply_async((3,), {"y": 4})
    ran = outbox.run()

    assert (results(ran), ran[0].task_id) == ([3, 7], first.id)
    assert first.get(timeout=1) == 3
    assert (list(outbox.run()), ran.left) == ([], ())


def test_what_a_savepoint_took_back_does_not_run(
    shop: Shop, outbox: OutboxTester, connection: Connection
) -> None:
    """It was not sent."""
    with suppress(KeyError), connection.transaction():
        shop.add.delay(1, 1)
        raise KeyError
    outbox.assert_nothing_sent()

    assert list(outbox.run()) == []


def test_the_request_is_that_of_a_worker(shop: Shop, outbox: OutboxTester) -> None:
    """From the message itself: ids, headers, place, arguments as a serialiser leaves them."""
    seen: dict[str, Any] = {}

    @shop.app.task(name="look", shared=False, bind=True)
    def look(self: Any, pair: Any) -> None:
        request = self.request
        seen.update(
            id=request.id,
            root=request.root_id,
            tenant=request.headers["tenant"] if request.headers else request.tenant,
            place=request.delivery_info["routing_key"],
            direct=request.called_directly,
            eager=request.is_eager,
            pair=pair,
        )

    sent = look.apply_async(((1, 2),), queue="slow", headers={"tenant": "a"}, compression="gzip")
    outbox.run()

    assert seen == {
        "id": sent.id,
        "root": sent.id,
        "tenant": "a",
        "place": "slow",
        "direct": False,
        "eager": False,
        "pair": [1, 2],
    }


CANVASES: dict[str, tuple[Any, list[int]]] = {
    "chain": (lambda s: chain(s.add.s(1, 1), s.add.s(2), s.add.s(3)), [2, 4, 7]),
    "group": (lambda s: group(s.add.s(n, n) for n in range(3)), [0, 2, 4]),
    "chord": (lambda s: chord([s.add.s(1, 1), s.add.s(2, 2)], s.total.s()), [2, 4, 6]),
    "chord in a chain": (
        lambda s: chain(s.add.s(1, 1), group(s.add.s(1), s.add.s(2)), s.total.s(), s.add.s(10)),
        [2, 3, 4, 7, 17],
    ),
    "link": (lambda s: s.add.s(1, 1).on_error(s.add.si(0, 0)).set(link=s.add.s(5)), [2, 7]),
}


@pytest.mark.parametrize("kind", CANVASES)
@pytest.mark.parametrize("where", ["memory", "app"])
def test_canvas(
    shop: Shop, request: pytest.FixtureRequest, tmp_path: Any, kind: str, where: str
) -> None:
    """Goes on to its end: with a backend that counts, and with one that must be asked."""
    if where == "app":
        shop.app.conf["result_backend"] = f"file://{tmp_path}"
    outbox = request.getfixturevalue("outbox")
    canvas, expected = CANVASES[kind]
    canvas(shop).apply_async()
    ran = outbox.run()

    own = [run.result for run in ran if not run.task.startswith("celery.")]
    assert (own, ran.left) == (expected, ())


@pytest.fixture
def outbox_results(request: pytest.FixtureRequest) -> str:
    """As the test says."""
    callspec: Any = getattr(request.node, "callspec", None)
    return str(callspec.params.get("where", "memory")) if callspec else "memory"


def test_a_failure_is_raised_at_the_end(shop: Shop, outbox: OutboxTester) -> None:
    """With its own type and what failed; others have run, and errbacks too."""
    told = []

    @shop.app.task(name="told", shared=False)
    def tell(request: Any, error: Exception, trace: str) -> None:
        told.append(type(error).__name__)

    shop.add.apply_async((1, "x"), link_error=tell.s())
    shop.add.delay(1, 1)
    with pytest.raises(TypeError) as raised:
        outbox.run()

    assert "shop.add" in raised.value.__notes__[0]
    assert raised.traceback[-1].name == "add"
    assert told == ["TypeError"]
    outbox.assert_sent(shop.add, count=2)


def test_several_failures(shop: Shop, outbox: OutboxTester) -> None:
    """Are raised together; or reported, where that is asked for."""
    shop.add.delay(1, "x")
    shop.add.delay(2, "x")
    with pytest.raises(ExceptionGroup, match="2 tasks"):
        outbox.run()
    shop.add.delay(3, "x")
    ran = outbox.run(raise_errors=False)

    assert states(ran) == [("shop.add", "FAILURE")]
    assert ran.failed == (ran[0],)
    assert isinstance(ran[0].exception, TypeError)


def test_a_retry_waits_for_its_time(shop: Shop, outbox: OutboxTester) -> None:
    """It is left, and listed; at that time it runs, under its own id."""

    @shop.app.task(name="flaky", shared=False, bind=True)
    def flaky(self: Any) -> int:
        if self.request.retries < 2:
            raise self.retry(countdown=60)
        return int(self.request.retries)

    sent = flaky.delay()
    ran = outbox.run()
    assert states(ran) == [("flaky", "RETRY")]
    (left,) = ran.left
    assert (left.message_id, left.eta is not None) == (sent.id, True)

    later = outbox.at(HOUR).run()
    assert states(later) == [("flaky", "RETRY"), ("flaky", "SUCCESS")]
    assert [run.retries for run in later] == [1, 2]
    assert {run.task_id for run in later} == {sent.id}


def test_a_retry_survives_what_its_task_rolls_back(
    shop: Shop, outbox: OutboxTester, connection: Connection
) -> None:
    """As with a worker: its own sends are gone, the retry is not."""

    @shop.app.task(name="flaky", shared=False, bind=True)
    def flaky(self: Any) -> None:
        with shop.app.outbox.transaction(connection):
            shop.add.delay(1, 1)
            if not self.request.retries:
                raise self.retry(countdown=0)

    flaky.delay()

    assert states(outbox.run()) == [
        ("flaky", "RETRY"),
        ("flaky", "SUCCESS"),
        ("shop.add", "SUCCESS"),
    ]


def test_replace_ignore_and_reject(shop: Shop, outbox: OutboxTester) -> None:
    """None of these is an error; what was put back is delivered again."""

    @shop.app.task(name="endings", shared=False, bind=True)
    def endings(self: Any, how: str) -> Any:
        if how == "replace":
            raise self.replace(shop.add.s(1, 1))
        if how == "ignore":
            raise Ignore
        if not self.request.delivery_info["redelivered"]:
            raise Reject("not now", requeue=True)
        raise Reject("never")

    for how in ("replace", "ignore", "reject"):
        endings.delay(how)

    assert states(outbox.run()) == [
        ("endings", "IGNORED"),
        ("endings", "IGNORED"),
        ("endings", "REJECTED"),
        ("endings", "REJECTED"),
        ("shop.add", "SUCCESS"),
    ]


def test_tasks_that_send(shop: Shop, outbox: OutboxTester) -> None:
    """With no transaction of their own: into the test's, and not in the test's block."""

    @shop.app.task(name="sends", shared=False)
    def sends(n: int) -> None:
        if n:
            sends.delay(n - 1)

    sends.delay(3)
    ran = outbox.run()

    assert [run.message.args for run in ran] == [[3], [2], [1], [0]]
    outbox.assert_sent("sends", count=4)


def test_many_at_once(shop: Shop, outbox: OutboxTester) -> None:
    """What send_many sends, from the test and from a task."""

    @shop.app.task(name="many", shared=False)
    def many() -> None:
        shop.app.outbox.send_many(shop.add, ((n, 0) for n in range(50)))

    shop.app.outbox.send_many(shop.add, ((n, 1) for n in range(50)))
    many.delay()

    assert len(outbox.run()) == 101


def test_an_endless_run_ends(shop: Shop, outbox: OutboxTester) -> None:
    """With an error that names who keeps it going."""

    @shop.app.task(name="for.ever", shared=False)
    def for_ever() -> None:
        for_ever.delay()

    for_ever.delay()
    with pytest.raises(EndlessRun, match=r"10 tasks.*for\.ever"):
        outbox.run(limit=10)


def test_eta(shop: Shop, outbox: OutboxTester) -> None:
    """What is due later is left; `at` runs it in the order of times, what it sends included."""
    seen = []

    @shop.app.task(name="note", shared=False)
    def note(what: str) -> None:
        seen.append(what)
        if what == "b":
            note.apply_async(("c",), countdown=30)

    note.apply_async(("d",), eta=datetime.now(UTC) + HOUR)
    note.apply_async(("b",), countdown=10)
    note.delay("a")
    note.apply_async(("e",), countdown=3 * 3600)
    assert len(outbox.run().left) == 3
    assert seen == ["a"]
    (left,) = outbox.at(datetime.now(UTC) + 2 * HOUR).run().left

    assert (seen, left.args) == (["a", "b", "c", "d"], ["e"])


def test_expired(shop: Shop, outbox: OutboxTester) -> None:
    """A task whose time is over does not run: when it expires before its eta comes."""
    shop.add.apply_async((1, 1), countdown=100, expires=50)
    shop.add.apply_async((2, 2), countdown=100, expires=150)

    assert states(outbox.at(HOUR).run()) == [("shop.add", "REVOKED"), ("shop.add", "SUCCESS")]


def test_fail_next(shop: Shop, outbox: OutboxTester) -> None:
    """The next run raises, as if its body had: autoretry_for sees it; then all is as before."""

    @shop.app.task(
        name="patient", shared=False, autoretry_for=(ConnectionError,), default_retry_delay=0
    )
    def patient() -> str:
        return "done"

    outbox.fail_next(patient, ConnectionError("away"))
    patient.delay()
    ran = outbox.run()
    assert states(ran) == [("patient", "RETRY"), ("patient", "SUCCESS")]
    assert isinstance(ran[0].exception, ConnectionError)

    outbox.fail_next("shop.add")
    shop.add.delay(1, 1)
    shop.add.delay(1, 1)
    failed, done = outbox.run()
    assert (failed.state, type(failed.exception)) == ("FAILURE", FailedOnPurpose)
    assert (done.state, done.result) == ("SUCCESS", 2)


def test_what_cannot_be_run_is_left(shop: Shop, outbox: OutboxTester) -> None:
    """Tasks of other services, and events."""
    shop.app.send_task("elsewhere.task")
    shop.app.outbox.publish(None, {"id": 1}, exchange="events", routing_key="paid")
    ran = outbox.run()

    assert [message.task for message in ran.left] == ["elsewhere.task", "paid"]


def test_results_are_not_asked_for_in_tasks(shop: Shop, outbox: OutboxTester) -> None:
    """Celery forbids that in a worker; here too, where it would wait for ever."""

    @shop.app.task(name="waits", shared=False)
    def waits() -> Any:
        return shop.add.delay(1, 1).get()

    waits.delay()
    with pytest.raises(RuntimeError, match="Never call result"):
        outbox.run()


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("driver", [*SYNCHRONOUS, *ASYNCHRONOUS, DJANGO], ids=str)
def test_every_target(
    shop: Shop,
    outbox: OutboxTester,
    request: pytest.FixtureRequest,
    database: str,
    driver: Driver,
    committed: bool,
) -> None:
    """Its transaction in progress, or what it has committed; tasks may have loops of their own."""
    if driver is DJANGO:
        request.getfixturevalue("django_database")

    @shop.app.task(name="sends", shared=False)
    def sends() -> None:
        if driver in ASYNCHRONOUS:
            asyncio.run(asyncio.sleep(0))
        chain(shop.add.s(1, 1), shop.add.s(1)).apply_async()

    async def main() -> None:
        talk = await opened(driver, database)
        own = outbox.on(talk.target)
        await talk.execute("SELECT 1")
        async with talk.using(shop.app.outbox):
            sends.delay()
        if committed:
            await talk.commit()
            if isinstance(talk, Django):
                talk.in_autocommit()
        sent = own.assert_sent("sends", count=1)
        ran = own.run()
        if driver in ASYNCHRONOUS:
            await sent
            ran = await ran
        else:
            with pytest.raises(AssertionError):
                own.assert_nothing_sent()
        assert results(ran) == [None, 2, 3]
        await talk.rollback()
        await talk.close()

    (asyncio.run if driver in ASYNCHRONOUS else finished)(main())


def test_needs_tasks_that_are_sent(trap: str, connection: Connection) -> None:
    """Eager tasks are not: the error says so."""
    app = make_shop(trap, task_always_eager=True).app
    with OutboxTest(app, connection) as outbox, pytest.raises(InvalidSetting, match="eager"):
        outbox.run()


def test_committed_earlier_in_the_test(
    shop: Shop, outbox: OutboxTester, connection: Connection, database: str
) -> None:
    """Is run as well; what others have committed is not."""
    with psycopg.connect(database) as other:
        other.execute("SELECT outbox.enqueue('shop.add', '[5, 5]')")
    shop.add.delay(1, 1)
    connection.commit()
    connection.execute("SELECT 1")

    assert results(outbox.run()) == [2]


def test_tasks_that_commit_by_themselves(
    shop: Shop, outbox: OutboxTester, database: str, connection: Connection
) -> None:
    """In a connection of their own: what they send there is run as well."""

    @shop.app.task(name="commits", shared=False)
    def commits() -> None:
        with psycopg.connect(database) as own, shop.app.outbox.using(own):
            shop.add.delay(2, 2)

    commits.delay()

    assert results(outbox.run()) == [None, 4]


def test_a_task_that_breaks_the_transaction(
    shop: Shop, outbox: OutboxTester, connection: Connection
) -> None:
    """Is named by the error, whose cause is its own."""

    @shop.app.task(name="breaks", shared=False)
    def breaks() -> None:
        connection.execute("SELECT 1 / 0")

    breaks.delay()
    with pytest.raises(UnusableTarget, match="has failed") as raised:
        outbox.run()

    assert "breaks" in raised.value.__notes__[0]
    assert isinstance(raised.value.__cause__, psycopg.errors.DivisionByZero)


def test_a_session_within_an_outer_transaction(
    shop: Shop, outbox: OutboxTester, database: str
) -> None:
    """As SQLAlchemy's manual has it for tests: its commits are savepoints, and it is in none then.

    What others have committed is not run.
    """
    with psycopg.connect(database) as other:
        other.execute("SELECT outbox.enqueue('shop.add', '[5, 5]')")
    engine = create_engine(database.replace("postgresql", "postgresql+psycopg", 1))
    with engine.connect() as connection, connection.begin() as outer:
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            with shop.app.outbox.using(session):
                shop.add.delay(1, 1)
            session.commit()
            assert results(outbox.on(session).run()) == [2]
            session.rollback()
            assert results(outbox.on(session).run()) == []
        outer.rollback()


def test_modules_with_tasks_are_imported(
    shop: Shop, outbox: OutboxTester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker imports them when it starts, where a task is not known yet."""
    (tmp_path / "late_tasks.py").write_text(
        "from celery import current_app\n"
        "@current_app.task(name='late', shared=False)\n"
        "def late():\n"
        "    return 'imported'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "late_tasks", raising=False)
    shop.app.conf["imports"] = ["late_tasks"]
    shop.app.set_current()
    shop.app.send_task("late")

    assert results(outbox.run()) == ["imported"]


def test_what_is_sent_in_sql(outbox: OutboxTester, connection: Connection) -> None:
    """By a trigger, say: it is in the transaction as any other."""
    connection.execute("SELECT outbox.enqueue('shop.add', '[5, 5]')")

    assert results(outbox.run()) == [10]


def test_keys(shop: Shop, outbox: OutboxTester) -> None:
    """What waits in a lane runs in its order; a key is free again once its task has run."""
    for n in range(3):
        shop.add.apply_async((n, 0), ordering_key="order")
        shop.add.apply_async((n, 7), dedup_key="index")
    assert results(outbox.run()) == [0, 7, 1, 2]
    shop.add.apply_async((1, 8), dedup_key="index")

    assert results(outbox.run()) == [9]


def test_one_id_twice(shop: Shop, outbox: OutboxTester) -> None:
    """Two messages of it are two deliveries."""
    shop.add.apply_async((1, 1), task_id="same")
    shop.add.apply_async((2, 2), task_id="same")

    assert results(outbox.run()) == [2, 4]


def test_what_a_worker_does_not_accept(shop: Shop, outbox: OutboxTester) -> None:
    """Is rejected, as there, and told."""
    shop.add.apply_async((1, 1), serializer="pickle")
    with pytest.raises(ContentDisallowed):
        outbox.run()
    shop.app.outbox.publish(None, {"id": 1}, routing_key="paid", headers={"task": "no task"})

    (left,) = outbox.run().left
    payload: Any = left.args
    assert payload == {"id": 1}


def test_a_run_can_be_read(shop: Shop, outbox: OutboxTester) -> None:
    """In the output of a test that failed."""
    shop.add.delay(1, 1)
    shop.app.send_task("elsewhere")

    assert repr(outbox.run()) == "<ran [<shop.add SUCCESS 2>], left ['elsewhere']>"
