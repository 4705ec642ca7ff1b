"""Real workers leave a receipt of every message, whatever became of it, on every pool."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from celery import Celery
from kombu import Connection

from celery_inbox import receipts
from celery_inbox.errors import UnusableConnection
from tests.fixtures.programs import Program, WorkerFactory
from tests.fixtures.receipts import NOTE
from tests.fixtures.waiting import wait_until
from tests.worker import leaving
from tests.worker.ledger import Ledger

SECONDS = 60.0
Send = Callable[..., None]
Start = Callable[..., Program]
ALL = "SELECT outcome, error, run FROM inbox.receipt WHERE message_id = %s"
PREFORK = ("--pool=prefork", "--concurrency=2")


@pytest.fixture
def either_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh broker: a Valkey, unless the test asks for RabbitMQ."""
    name = "broker_url" if getattr(request, "param", "") == "rabbitmq" else "valkey_url"
    url: str = request.getfixturevalue(name)
    return url


BOTH = pytest.mark.parametrize("either_url", ["rabbitmq", "valkey"], indirect=True)


@pytest.fixture
def send(either_url: str) -> Iterator[Send]:
    """Send a task: ``send("fail", "id-1", **options)``."""
    with Celery("sender", broker=either_url, set_as_current=False) as app:

        def send(task: str, id_: str, *arguments: Any, **options: Any) -> None:
            app.send_task(f"{leaving.__name__}.{task}", arguments, task_id=id_, **options)

        yield send


@pytest.fixture
def start(ledger: Ledger, either_url: str, celery_worker: WorkerFactory) -> Start:
    """Start a worker that leaves receipts."""
    own = {"LEAVING_BROKER": either_url, "LEAVING_DATABASE": ledger.dsn}
    return lambda *options, **more: celery_worker(leaving.__name__, *options, **{**own, **more})


@pytest.fixture
def without_rights(ledger: Ledger) -> Iterator[str]:
    """The URL of a login that may do nothing in the inbox."""
    parts = urlsplit(ledger.dsn)
    ledger.run("CREATE ROLE stranger LOGIN PASSWORD 'p'")
    yield urlunsplit(parts._replace(netloc=f"stranger:p@{parts.hostname}:{parts.port}"))
    ledger.run("DROP ROLE stranger")


def receipt(ledger: Ledger, id_: str, *outcomes: str) -> tuple[Any, ...]:
    """The receipt of a message, once it tells of one of these outcomes."""

    def found() -> tuple[Any, ...]:
        rows = ledger.run(ALL, id_)
        return rows[0] if rows and rows[0][0] in outcomes else ()

    return wait_until(found, SECONDS, f"a receipt of {id_}: {outcomes}")


@pytest.mark.parametrize(
    ("either_url", "pool"),
    [("rabbitmq", "prefork"), ("valkey", "threads"), ("valkey", "solo"), ("rabbitmq", "gevent")],
    indirect=["either_url"],
)
def test_every_ending_is_recorded(ledger: Ledger, start: Start, send: Send, pool: str) -> None:
    """With its name alone: neither results, nor arguments, nor the texts of errors."""
    send("succeed", "succeeds")
    send("fail", "fails")
    send("fail_oddly", "fails oddly")
    send("reject", "rejects")
    send("ignore", "ignores")
    send("third_time", "retries")
    send("replaced", "is replaced")
    send("succeed", "expires", headers={"expires": "2020-01-01T00:00:00+00:00"})
    send("nothing_of_the_kind", "is unknown")

    start(f"--pool={pool}", "--concurrency=2")

    assert receipt(ledger, "succeeds", "succeeded") == ("succeeded", None, 0)
    assert receipt(ledger, "fails", "failed") == ("failed", "LookupError", 0)
    assert receipt(ledger, "fails oddly", "failed") == ("failed", "CannotBePickled", 0)
    assert receipt(ledger, "rejects", "rejected") == ("rejected", "Reject", 0)
    assert receipt(ledger, "ignores", "ignored") == ("ignored", None, 0)
    assert receipt(ledger, "retries", "succeeded") == ("succeeded", None, 2)
    assert receipt(ledger, "is replaced", "succeeded") == ("succeeded", None, 1_000_000)
    assert receipt(ledger, "expires", "revoked") == ("revoked", "expired", 0)
    assert receipt(ledger, "is unknown", "unregistered") == ("unregistered", "NotRegistered", 0)
    [(task, worker, known)] = ledger.run(
        "SELECT task, worker, received_at <= finished_at AND finished_at <= noted_at"
        " FROM inbox.receipt WHERE message_id = 'succeeds'"
    )
    assert task == f"{leaving.__name__}.succeed"
    assert worker.endswith("@localhost")
    assert known
    stored = str(ledger.run("SELECT r::text FROM inbox.receipt r"))
    assert "secret" not in stored


@BOTH
def test_what_cannot_be_decoded_is_recorded(ledger: Ledger, start: Start, either_url: str) -> None:
    """Whether its bytes are none of the format it claims, or of a format that is not accepted."""
    start()
    with Connection(either_url) as connection:
        producer: Any = connection.Producer()
        for id_, kind in (("broken", "application/json"), ("forbidden", "application/x-python")):
            headers = {"id": id_, "task": f"{leaving.__name__}.succeed"}
            producer.publish(
                b"{", "celery", headers=headers, content_type=kind, content_encoding="utf-8"
            )

    assert receipt(ledger, "broken", "undecodable")[0] == "undecodable"
    assert receipt(ledger, "forbidden", "undecodable")[0] == "undecodable"


@BOTH
def test_a_dead_child_takes_no_receipt_along(ledger: Ledger, start: Start, send: Send) -> None:
    """The main process tells of it: killed, or too slow; what the others did is there as well."""
    start(*PREFORK)
    for number in range(20):
        send("succeed", f"before {number}")
    send("die", "dies")
    send("too_slow", "is slow")
    for number in range(20):
        send("succeed", f"after {number}")

    assert receipt(ledger, "dies", "lost") == ("lost", "WorkerLostError", 0)
    assert receipt(ledger, "is slow", "failed") == ("failed", "TimeLimitExceeded", 0)
    for number in range(20):
        receipt(ledger, f"before {number}", "succeeded")
        receipt(ledger, f"after {number}", "succeeded")


def test_a_strategy_with_requests_of_its_own_tells(
    ledger: Ledger, start: Start, send: Send
) -> None:
    """Of batches, say: the worker makes them in another way, and they end as others do."""
    send("its_own_way", "succeeds")
    send("fail_its_own_way", "fails")

    start(*PREFORK)

    assert receipt(ledger, "succeeds", "succeeded") == ("succeeded", None, 0)
    assert receipt(ledger, "fails", "failed") == ("failed", "LookupError", 0)


def running_in(file: Path) -> int:
    """The process in which the task that waits for this file runs."""
    said = file.with_name(f"{file.name}.running")
    return int(wait_until(lambda: said.exists() and said.read_text(), SECONDS, "the task to run"))


def test_what_goes_back_to_the_broker_has_not_ended(
    ledger: Ledger, start: Start, send: Send, tmp_path: Path
) -> None:
    """With late acknowledgement a killed child's message comes again: its receipt is of then."""
    file = tmp_path / "go"
    worker = start("--pool=prefork", LEAVING_ACKS="late")
    send("wait", "comes again", str(file))
    os.kill(running_in(file), signal.SIGKILL)
    send("succeed", "another")
    worker.wait_for_output("WorkerLost")
    assert ledger.run(ALL, "comes again") == []
    file.touch()

    assert receipt(ledger, "comes again", "succeeded") == ("succeeded", None, 0)


def left_in(url: str) -> int:
    """Messages that no worker has taken; an emptied list is no queue to Redis."""
    with Connection(url) as connection:
        try:
            return int(connection.SimpleQueue("celery").qsize())
        except connection.channel_errors:
            return 0


def test_the_end_of_a_worker_writes_what_is_left(
    ledger: Ledger, start: Start, send: Send, either_url: str
) -> None:
    """A deployment loses no receipt: of all that ran there is one."""
    worker = start(*PREFORK)
    for number in range(500):
        send("succeed", f"{number}")
    wait_until(lambda: "succeeded in" in worker.output(), SECONDS, "a first task")

    worker.stop()

    assert ledger.run("SELECT count(*) FROM inbox.receipt") == [(500 - left_in(either_url),)]


@pytest.mark.parametrize(
    ("fault", "way_out"),
    [
        ("DROP SCHEMA inbox CASCADE", "outbox-migrate up"),
        ("DROP FUNCTION inbox.watch", "outbox-migrate up"),
        ("REVOKE", "outbox-migrate grant"),
    ],
)
def test_a_worker_without_receipts_works(
    ledger: Ledger,
    valkey_url: str,
    celery_worker: WorkerFactory,
    without_rights: str,
    fault: Any,
    way_out: str,
) -> None:
    """It says why there are none, and the way out; every task runs."""
    dsn = ledger.dsn
    if fault == "REVOKE":
        dsn = without_rights
    else:
        ledger.run(fault)
    with Celery("sender", broker=valkey_url, set_as_current=False) as app:
        app.send_task(f"{leaving.__name__}.succeed", task_id="one")

    worker = celery_worker(leaving.__name__, LEAVING_BROKER=valkey_url, LEAVING_DATABASE=dsn)

    worker.wait_for_output("receipts cannot be written")
    worker.wait_for_output(way_out)
    worker.wait_for_output("succeeded in")


def test_receipts_wait_for_a_database(ledger: Ledger, start: Start, send: Send) -> None:
    """While it refuses, tasks run; afterwards their receipts are written."""
    ledger.run("ALTER FUNCTION inbox.note_receipts RENAME TO away")
    worker = start()
    for number in range(50):
        send("succeed", f"{number}")
    wait_until(lambda: worker.output().count("succeeded in") == 50, SECONDS, "all tasks")
    worker.wait_for_output("receipts cannot be written")
    assert ledger.run("SELECT count(*) FROM inbox.receipt") == [(0,)]

    ledger.run("ALTER FUNCTION inbox.away RENAME TO note_receipts")

    for number in range(50):
        receipt(ledger, f"{number}", "succeeded")


def test_a_worker_watches_its_tasks(ledger: Ledger, start: Start) -> None:
    """Of these a receipt can be missed, from now on."""
    start()

    def watched() -> set[str]:
        return {task for (task,) in ledger.run("SELECT task FROM inbox.watched")}

    wait_until(lambda: f"{leaving.__name__}.succeed" in watched(), SECONDS, "its tasks")


def test_what_tells_most_stays(ledger: Ledger) -> None:
    """Whatever order receipts of one message arrive in: the later run, then what has ended."""

    def noted(*endings: tuple[str, int]) -> tuple[str, int]:
        ledger.run("DELETE FROM inbox.receipt")
        for outcome, run in endings:
            ledger.run(
                NOTE, "w", f'[{{"id": "a", "task": "t", "outcome": "{outcome}", "run": {run}}}]'
            )
        [(outcome, run)] = ledger.run("SELECT outcome, run FROM inbox.receipt")
        return outcome, run

    assert noted(("succeeded", 0), ("held", 0)) == ("succeeded", 0)
    assert noted(("held", 0), ("failed", 0)) == ("failed", 0)
    assert noted(("succeeded", 0), ("failed", 0)) == ("succeeded", 0)
    assert noted(("failed", 0), ("succeeded", 0)) == ("succeeded", 0)
    assert noted(("retried", 0), ("held", 1)) == ("held", 1)
    assert noted(("succeeded", 1), ("retried", 0)) == ("succeeded", 1)
    assert noted(("unregistered", 0), ("succeeded", 0)) == ("succeeded", 0)
    for outcome in ("lost", "unregistered", "undecodable"):
        # It was sent again, and a worker has it now; which may lose it once more.
        assert noted((outcome, 0), ("held", 0)) == ("held", 0)
        assert noted(("held", 0), (outcome, 0)) == (outcome, 0)


def test_the_two_endings_of_one_batch_are_one_receipt(ledger: Ledger) -> None:
    """A retry and its next run, say."""
    batch = (
        '[{"id": "a", "task": "t", "outcome": "retried", "run": 0, "finished": 2},'
        ' {"id": "a", "task": "t", "outcome": "succeeded", "run": 1, "finished": 1}]'
    )
    ledger.run(NOTE, "w", batch)

    assert ledger.run(ALL, "a") == [("succeeded", None, 1)]


def test_of_one_batch_the_last_word_counts(ledger: Ledger) -> None:
    """What a worker held is lost by now."""
    batch = (
        '[{"id": "a", "task": "t", "outcome": "held", "run": 0},'
        ' {"id": "a", "task": "t", "outcome": "lost", "run": 0, "finished": 1}]'
    )
    ledger.run(NOTE, "w", batch)

    assert ledger.run(ALL, "a") == [("lost", None, 0)]


def test_receipts_are_purged_with_the_rest(ledger: Ledger) -> None:
    """And what they then cannot tell any more, they do not seem to."""
    ledger.run("SELECT inbox.watch(ARRAY['t'])")
    ledger.run("UPDATE inbox.watched SET since = now() - interval '90 days'")
    ledger.run(
        "INSERT INTO inbox.receipt (message_id, task, outcome, noted_at)"
        " SELECT n::text, 't', 'succeeded', now() - n * interval '1 day'"
        " FROM generate_series(1, 20) n"
    )

    assert ledger.run("SELECT inbox.purge()") == [(7,)]

    assert ledger.run("SELECT count(*) FROM inbox.receipt") == [(13,)]
    assert ledger.run(
        "SELECT since = now() - interval '14 days' OR since >"
        " now() - interval '14 days 1 minute' FROM inbox.watched"
    ) == [(True,)]


def test_what_leads_to_no_database_is_refused_at_once() -> None:
    """Where the app is made, and not in a worker's log."""
    with Celery("shop", set_as_current=False) as app, pytest.raises(UnusableConnection):
        receipts(app, 42)
