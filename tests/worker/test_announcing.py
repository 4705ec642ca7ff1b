"""A worker says which queues it consumes and which tasks it knows, for as long as it lives."""

from collections.abc import Iterator

import psycopg
import pytest

from celery_inbox.announcing import Announcer
from tests.fixtures.programs import WorkerFactory
from tests.fixtures.waiting import wait_until
from tests.worker import knowing
from tests.worker.ledger import Ledger

LIVE = "SELECT node, queues, tasks FROM inbox.worker WHERE alive_until > now()"
Seen = dict[str, list[str]]


@pytest.fixture
def running() -> Iterator[list[Announcer]]:
    """Announcers that end with the test."""
    announcers: list[Announcer] = []
    yield announcers
    for announcer in announcers:
        announcer.end()


def begin(running: list[Announcer], dsn: str, seen: list[Seen]) -> Announcer:
    """An announcer of what is the last in the list."""
    announcer = Announcer(lambda: psycopg.connect(dsn), "w@host", lambda: seen[-1])
    running.append(announcer)
    announcer.start()
    return announcer


def test_a_worker_is_there_while_it_runs(
    ledger: Ledger, valkey_url: str, celery_worker: WorkerFactory
) -> None:
    """Its row has its queues and tasks, and goes with it."""
    worker = celery_worker(
        knowing.__name__,
        "--queues=celery,letters",
        KNOWING_BROKER=valkey_url,
        KNOWING_DATABASE=ledger.dsn,
        KNOWING_TASKS="shop.bill,shop.mail",
    )

    [(_, queues, tasks)] = wait_until(lambda: ledger.run(LIVE), 30, "the worker's row")
    assert queues == ["celery", "letters"]
    assert {"shop.bill", "shop.mail", "celery.chain"} <= set(tasks)
    worker.stop()
    assert ledger.run("SELECT node FROM inbox.worker") == []


def test_what_changes_is_said_anew(ledger: Ledger, running: list[Announcer]) -> None:
    """A queue that is added while the worker runs, say; a beat alone says nothing new."""
    seen = [{"queues": ["celery"], "tasks": ["shop.bill"]}]
    announcer = begin(running, ledger.dsn, seen)
    wait_until(lambda: ledger.run(LIVE), 10, "the first row")
    before = ledger.run("SELECT said_at, seen_at FROM inbox.worker")[0]

    announcer.wake()
    beaten = wait_until(
        lambda: ledger.run(
            f"SELECT said_at, seen_at FROM inbox.worker WHERE seen_at <> '{before[1]}'"
        ),
        10,
        "a beat",
    )
    assert beaten[0][0] == before[0]
    seen.append({"queues": ["celery", "letters"], "tasks": ["shop.bill"]})
    announcer.wake()
    wait_until(lambda: ledger.run(f"{LIVE} AND 'letters' = ANY (queues)"), 10, "the new queue")


def test_a_row_that_somebody_deleted_comes_back(ledger: Ledger, running: list[Announcer]) -> None:
    """A restored database, say, knows nothing of this worker."""
    announcer = begin(running, ledger.dsn, [{"queues": ["celery"], "tasks": []}])
    wait_until(lambda: ledger.run(LIVE), 10, "the first row")
    ledger.run("DELETE FROM inbox.worker")

    announcer.wake()
    wait_until(lambda: ledger.run(LIVE), 10, "the row again")


def test_rows_of_lost_workers_go_after_a_day(ledger: Ledger, running: list[Announcer]) -> None:
    """Those of an hour ago are still there for who asks what became of a message."""
    ledger.run(
        "INSERT INTO inbox.worker (node, queues, tasks, alive_until) VALUES "
        "('old', '{}', '{}', now() - interval '25 hours'),"
        "('lost', '{}', '{}', now() - interval '1 hour')"
    )
    begin(running, ledger.dsn, [{"queues": ["celery"], "tasks": []}])
    wait_until(lambda: ledger.run(LIVE), 10, "the row")

    assert {node for (node,) in ledger.run("SELECT node FROM inbox.worker")} == {"lost", "w@host"}


def test_a_database_without_the_inbox_costs_a_warning(
    empty_database: str, running: list[Announcer], caplog: pytest.LogCaptureFixture
) -> None:
    """The worker works on, is told once, and is there as soon as the tables are."""
    announcer = begin(running, empty_database, [{"queues": ["celery"], "tasks": []}])
    wait_until(lambda: "run `outbox-migrate up` on it" in caplog.text, 10, "the warning")
    announcer.wake()
    announcer.end()

    assert caplog.text.count("cannot say in inbox.worker") == 1
