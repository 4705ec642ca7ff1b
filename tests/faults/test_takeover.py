"""What fail-overs are measured with: a first commit, what is sent after it, tables of many."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

from servers.ports import free_port
from tests.faults import takeover
from tests.faults.ledger import Ledger
from tests.faults.takeover import Takeover, Witness
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.smoke

SECONDS = 30.0
SEND: LiteralString = "INSERT INTO outbox.receipt (slot, span, ids) VALUES (0, '[1,1]', '{1}')"
STORED: LiteralString = "SELECT message_id FROM outbox.message"


def test_what_is_sent_counts_from_the_first_commit_on(database: str) -> None:
    """One server is down; the other leads, and something was sent there already."""
    ledger = Ledger()
    down = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    with psycopg.connect(database, autocommit=True) as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(SEND)
        with Witness(ledger, [down, database]) as witness:
            measured = pool.submit(witness.wait_sent, SECONDS)
            wait_until(lambda: ledger.committed, SECONDS, "a commit")
            assert not measured.done()
            wait_until(lambda: connection.execute(SEND) and measured.done(), SECONDS, "an end")
        assert connection.execute(STORED).fetchall() == [(id_,) for id_ in ledger.committed]

    led, sent = measured.result()
    assert led < sent


def test_a_run_ends_with_its_own_fail_overs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind has a row, with the median and the worst, and so have all of them together."""
    monkeypatch.setattr(takeover, "FILE", tmp_path / "made" / "takeovers.jsonl")
    assert takeover.tables(takeover.since(takeover.length())) == []
    Takeover("kill", "synchronous", "haproxy", 20.0, 0.5, 90.0, 9.0, 0, 1, 0).write()
    before = takeover.length()
    for sent in (1.0, 2.0, 6.04):
        Takeover("kill", "synchronous", "haproxy", 20.0, 0.5, sent, 9.0, 0, 3, 0).write()
    Takeover("freeze", "synchronous", "haproxy", 22.0, 1.5, 3.0, 5.0, 0, 0, 0).write()

    assert takeover.tables(takeover.since(before)) == [
        "| cluster | what befell the leader | first commit after | a standby after |"
        " whole again after |",
        "| --- | --- | --- | --- | --- |",
        "| synchronous | all | 20.0 s | 0.5 s | 9.0 s |",
        "| synchronous | freeze | 22.0 s | 1.5 s | 5.0 s |",
        "| synchronous | kill | 20.0 s | 0.5 s | 9.0 s |",
        "",
        "| cluster | way | what befell the leader | fail-overs | lost | sent twice |"
        " sent again after | at most |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| synchronous | haproxy | all | 4 | 0 | 9 | 2.5 s | 6.0 s |",
        "| synchronous | haproxy | freeze | 1 | 0 | 0 | 3.0 s | 3.0 s |",
        "| synchronous | haproxy | kill | 3 | 0 | 9 | 2.0 s | 6.0 s |",
    ]
