"""Receipts reach their table in few transactions, and as they were noted."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from celery_inbox import recorder as recording
from celery_inbox.endings import Ending
from celery_inbox.kept import KeptConnections
from celery_inbox.recorder import Recorder
from tests.fixtures.waiting import wait_until
from tests.worker.ledger import Ledger

SECONDS = 60.0
COUNT = "SELECT count(*) FROM inbox.receipt"


def ending(id_: str, task: str = "t", error: str | None = None) -> Ending:
    """One that has just succeeded, after a second."""
    now = time.monotonic()
    return (id_, task, "succeeded", error, 0, now - 1, now)


def recorder(connect: Callable[[], Any]) -> Recorder:
    """Of a worker that holds nothing."""
    return Recorder(connect, lambda _: [])


def test_what_comes_while_a_batch_is_written_waits_for_the_next(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However busy a worker is, it has a transaction each half second, not one after another."""
    monkeypatch.setattr(recording, "INTERVAL", 0.0)
    monkeypatch.setattr(recording, "BATCH", 3)
    connect = KeptConnections(ledger.dsn).connection
    transactions = 0
    busy = True

    def counted() -> Any:
        nonlocal transactions
        transactions += 1
        monkeypatch.setattr(recording, "INTERVAL", 3600.0)  # until it looks again
        if busy:
            kept.note(ending(f"meanwhile {transactions}"))
        return connect()

    kept = recorder(counted)
    for number in range(3):
        kept.note(ending(f"{number}"))
    kept.start("w@host", ["t"])
    wait_until(lambda: ledger.run(COUNT) == [(3,)], SECONDS, "a first batch")
    busy = False

    kept.stop()

    assert transactions == 3  # what it watches, a batch, and what is left
    assert ledger.run(COUNT) == [(5,)]


def test_a_full_batch_waits_for_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has piled up while the database was away is written at once, batch after batch."""
    monkeypatch.setattr(recording, "INTERVAL", 0.0)
    monkeypatch.setattr(recording, "BATCH", 3)
    connections = KeptConnections(ledger.dsn)

    def connect() -> Any:
        monkeypatch.setattr(recording, "INTERVAL", 3600.0)  # until it looks again
        return connections.connection()

    kept = recorder(connect)
    for number in range(10):
        kept.note(ending(f"{number}"))
    kept.start("w@host", ["t"])

    wait_until(lambda: ledger.run(COUNT) == [(9,)], SECONDS, "three batches")
    kept.stop()

    assert ledger.run(COUNT) == [(10,)]


def test_a_worker_that_starts_again_goes_on(ledger: Ledger) -> None:
    """In the same process, under another name, with what was noted in between."""
    kept = recorder(KeptConnections(ledger.dsn).connection)
    for worker in ("first@host", "second@host"):
        kept.note(ending(f"of {worker}"))
        kept.start(worker, ["t"])
        kept.stop()

    rows = ledger.run("SELECT message_id, worker FROM inbox.receipt ORDER BY 1")
    assert rows == [(f"of {worker}", worker) for worker in ("first@host", "second@host")]


def test_whatever_is_in_a_text_it_is_kept(ledger: Ledger) -> None:
    """Names that Postgres' notation of arrays would take for its own among them."""
    odd = ['"', "\\", '\\"', "a,b", "{a}", "}", "NULL", "null", "", " a ", "\n\t\x1f", "ä€🐇", "%s"]
    kept = recorder(KeptConnections(ledger.dsn).connection)
    for text in odd:
        kept.note(ending(f"id {text}", task=text, error=text))
    kept.note(ending("nul", task="a\0b"))
    kept.note(ending("half", task="a\ud800"))
    kept.note(ending("long", task="x" * 300))
    kept.start("w@host", ["t"])

    kept.stop()

    rows = ledger.run("SELECT message_id, task, error, run FROM inbox.receipt")
    found = {id_: (task, error, run) for id_, task, error, run in rows}
    assert found == {f"id {text}": (text, text, 0) for text in odd} | {
        "nul": ("a�b", None, 0),
        "half": ("a?", None, 0),
        "long": ("x" * 255, None, 0),
    }


def test_times_are_as_the_worker_measured_them(ledger: Ledger) -> None:
    """By how long ago they were, as the clocks of two machines differ; or unknown."""
    kept = recorder(KeptConnections(ledger.dsn).connection)
    now = time.monotonic()
    kept.note(("known", "t", "succeeded", None, 3, now - 3600, now - 1800))
    kept.note(("held", "t", "held", None, 0, now - 3600, None))
    kept.note(("thrown", "t", "unregistered", "NotRegistered", 0, None, now - 1800))
    kept.start("w@host", ["t"])

    kept.stop()

    assert sorted(
        ledger.run(
            "SELECT message_id, run, date_trunc('minute', noted_at - received_at)::text,"
            " date_trunc('minute', noted_at - finished_at)::text FROM inbox.receipt"
        )
    ) == [
        ("held", 0, "01:00:00", None),
        ("known", 3, "01:00:00", "00:30:00"),
        ("thrown", 0, None, "00:30:00"),
    ]
