"""`outbox-relay bench` measures, disturbs nobody, and leaves nothing behind."""

import json

import pytest

from outbox_relay.cli import main
from tests.fixtures.broker import Broker
from tests.fixtures.rows import commit_rows, states


@pytest.fixture(autouse=True)
def environment(database: str, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole installation, but for a relay."""
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    monkeypatch.setenv("OUTBOX_BROKER_URL", broker.url)


def test_it_measures_and_cleans_up(
    database: str, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rate and latency as JSON; no message and no queue are left."""
    assert main(["bench", "--messages", "500", "--json"]) == 0

    figures = json.loads(capsys.readouterr().out)
    assert figures["messages"] == 500
    assert figures["drain_per_second"] > 0
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"]
    assert states(database) == {"pending": 0, "scheduled": 0, "sent": 0, "dead": 0}
    assert "outbox-bench" not in broker.ctl("list_queues", "name")


def test_it_leaves_a_busy_outbox_alone(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages of others are not sent by a measurement."""
    commit_rows(database, 3)

    assert main(["bench"]) == 1

    assert "3 messages" in capsys.readouterr().out
    assert states(database)["pending"] == 3
