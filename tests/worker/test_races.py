"""Two deliveries of one message at the same moment have one effect, at every isolation level."""

import pickle
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.exceptions import Reject
from psycopg import IsolationLevel

from celery_inbox import idempotent
from tests.fixtures.waiting import wait_until
from tests.worker.ledger import Deliver, Ledger

NOTE = "INSERT INTO effect (note) VALUES (%s)"
DEADLINE = 20.0


@pytest.fixture(
    params=[
        IsolationLevel.READ_COMMITTED,
        IsolationLevel.REPEATABLE_READ,
        IsolationLevel.SERIALIZABLE,
    ],
    ids=lambda level: level.name.lower(),
)
def isolated(request: pytest.FixtureRequest, ledger: Ledger) -> Ledger:
    """The ledger, whose tasks connect at one isolation level."""
    return Ledger(ledger.dsn, request.param)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Threads to deliver from; a test leaves none behind."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_a_duplicate_waits_for_the_first_and_takes_its_result(
    app: Celery, isolated: Ledger, deliver: Deliver, threads: ThreadPoolExecutor
) -> None:
    """While the first run is in doubt the second neither runs nor answers."""
    entered, finish = Event(), Event()

    @app.task(bind=True)
    @idempotent(isolated.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        entered.set()
        assert finish.wait(DEADLINE)
        return "first"

    first = threads.submit(deliver, charge)
    assert entered.wait(DEADLINE)
    second = threads.submit(deliver, charge)
    wait_until(lambda: waiting_sessions(isolated) == 1, DEADLINE, "a waiting duplicate")
    assert not second.done()
    finish.set()

    assert [first.result(DEADLINE), second.result(DEADLINE)] == ["first", "first"]
    assert isolated.effects() == ["charged"]


def test_a_duplicate_runs_when_the_first_rolled_back(
    app: Celery, isolated: Ledger, deliver: Deliver, threads: ThreadPoolExecutor
) -> None:
    """The one that waited takes over: a failed first run is no reason to lose the task."""
    entered, finish, runs = Event(), Event(), iter(["first", "second"])

    @app.task(bind=True)
    @idempotent(isolated.connect)
    def charge(self: Any, conn: Any) -> Any:
        run = next(runs)
        conn.execute(NOTE, (run,))
        if run == "first":
            entered.set()
            assert finish.wait(DEADLINE)
            raise LookupError("no such card")
        return run

    first = threads.submit(deliver, charge)
    assert entered.wait(DEADLINE)
    second = threads.submit(deliver, charge)
    wait_until(lambda: waiting_sessions(isolated) == 1, DEADLINE, "a waiting duplicate")
    finish.set()

    assert isinstance(first.exception(DEADLINE), LookupError)
    assert second.result(DEADLINE) == "second"
    assert isolated.effects() == ["second"]


def test_many_messages_delivered_at_once_have_one_effect_each(
    app: Celery, isolated: Ledger, deliver: Deliver, threads: ThreadPoolExecutor
) -> None:
    """Eight threads race over the same ten messages in the same order."""
    start = Barrier(8)

    @app.task(bind=True)
    @idempotent(isolated.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, (self.request.id,))
        return self.request.id

    app.finalize()  # as workers do first: threads could meet the task half bound
    ids = [f"message-{number}" for number in range(10)]

    def race() -> list[str]:
        start.wait(DEADLINE)
        return [deliver(charge, id=id) for id in ids]

    racers: list[Future[list[str]]] = [threads.submit(race) for _ in range(8)]

    assert all(racer.result(DEADLINE * 2) == ids for racer in racers)
    assert sorted(isolated.effects()) == ids


def test_a_body_that_lost_a_race_runs_again(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """A serialization failure between two different messages costs an attempt, not the task."""
    snapshot = Ledger(ledger.dsn, IsolationLevel.REPEATABLE_READ)
    ledger.run("INSERT INTO effect (note) VALUES ('untouched')")
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(snapshot.connect)
    def charge(self: Any, conn: Any) -> Any:
        attempts.append(1)
        conn.execute("SELECT * FROM effect")
        if len(attempts) == 1:
            ledger.run("UPDATE effect SET note = 'theirs'")
        conn.execute("UPDATE effect SET note = note || ' and ours'")

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["theirs and ours"]


def test_a_body_whose_connection_died_runs_again(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """A killed backend rolled everything back: the next attempt starts from nothing."""
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        attempts.append(1)
        conn.execute(NOTE, ("charged",))
        if len(attempts) == 1:
            ledger.run("SELECT pg_terminate_backend(%s)", conn.info.backend_pid)

    deliver(charge)

    assert len(attempts) == 2
    assert ledger.effects() == ["charged"]


def test_a_commit_of_unknown_outcome_is_looked_up_not_repeated(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """When the reply to COMMIT is lost, the inbox row tells that it had happened."""
    replies_lost = [True]

    class LosesReply(psycopg.Connection):
        def __exit__(self, *ending: Any) -> Any:
            super().__exit__(*ending)
            if replies_lost:
                replies_lost.pop()
                raise psycopg.OperationalError("server closed the connection unexpectedly")

    @app.task(bind=True)
    @idempotent(lambda: LosesReply.connect(ledger.dsn))
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        return "charged"

    assert deliver(charge) == "charged"
    assert not replies_lost
    assert ledger.effects() == ["charged"]


def test_a_race_lost_for_ever_is_reported(
    app: Celery, ledger: Ledger, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts are bounded: then the database's own error reaches Celery."""
    monkeypatch.setattr("celery_inbox.transient.ATTEMPTS", 3)
    attempts: list[int] = []

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        attempts.append(1)
        conn.execute("DO $$ BEGIN RAISE serialization_failure; END $$")

    with pytest.raises(psycopg.errors.SerializationFailure):
        deliver(charge)
    assert len(attempts) == 3


def test_an_outage_fails_no_task(
    app: Celery, ledger: Ledger, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many attempts that takes; at last the message goes back to the queue."""
    monkeypatch.setattr("celery_inbox.transient.ATTEMPTS", 1)
    monkeypatch.setattr("celery_inbox.transient.PATIENCE", 0.2)
    attempts: list[int] = []

    def away() -> psycopg.Connection[Any]:
        attempts.append(1)
        return psycopg.connect("postgresql://127.0.0.1:1/nowhere")

    @app.task(bind=True)
    @idempotent(away)
    def charge(self: Any, conn: Any) -> Any:
        pytest.fail("ran without a database")

    with pytest.raises(Reject) as rejected:
        deliver(charge)

    rejection: Any = rejected.value  # celery-types knows no requeue
    assert rejection.requeue
    assert len(attempts) > 1
    with pytest.raises(psycopg.OperationalError):
        charge()


def test_a_duplicate_goes_back_to_the_queue_at_its_deadline(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """A worker slot is not held for ever by somebody else's long run."""

    @app.task(bind=True)
    @idempotent(ledger.connect, wait=0.05)
    def charge(self: Any, conn: Any) -> Any:
        pytest.fail("ran beside the first")

    with psycopg.connect(ledger.dsn) as elsewhere:
        elsewhere.execute(
            "INSERT INTO inbox.processed (message_id, task) VALUES ('message-1', %s)",
            (charge.name,),
        )
        with pytest.raises(Reject) as rejected:
            deliver(charge)

    rejection: Any = rejected.value  # celery-types knows no requeue
    assert rejection.requeue


def test_automatic_retries_do_not_take_the_message(
    app: Celery, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`autoretry_for=(Exception,)` neither spends a retry on an outage nor discards the message."""
    monkeypatch.setattr("celery_inbox.transient.PATIENCE", 0.0)

    @app.task(bind=True, autoretry_for=(Exception,), max_retries=0)
    @idempotent(lambda: psycopg.connect("postgresql://127.0.0.1:1/nowhere"))
    def charge(self: Any, conn: Any) -> Any:
        pytest.fail("ran without a database")

    with pytest.raises(Reject) as rejected:
        deliver(charge)

    copy: Any = pickle.loads(pickle.dumps(rejected.value))  # as a worker's child process sends it
    assert copy.requeue


def test_a_lock_timeout_of_the_body_is_the_bodys_own_error(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Only the wait for a first delivery sends a message back."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute("SET LOCAL lock_timeout = '50ms'")
        conn.execute("LOCK TABLE effect IN ACCESS EXCLUSIVE MODE")

    with psycopg.connect(ledger.dsn) as elsewhere:
        elsewhere.execute("LOCK TABLE effect IN ACCESS SHARE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            deliver(charge)


def waiting_sessions(ledger: Ledger) -> int:
    """How many sessions of this database wait for a lock."""
    [(waiting,)] = ledger.run(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(waiting)
