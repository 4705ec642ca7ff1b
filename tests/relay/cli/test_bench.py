"""`outbox-relay bench` measures, disturbs nobody, and leaves nothing behind."""

import json

import psycopg
import pytest

from outbox_relay.cli.main import main
from outbox_relay.loop import retention
from tests.fixtures.broker import Broker
from tests.fixtures.rows import commit_rows, states

#: Somebody else sends a message together with the first ones of the measurement.
TRIGGER = """
CREATE FUNCTION public.join_in() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM outbox.message WHERE task = 'shop.bill') < 4 THEN
        INSERT INTO outbox.message
            (message_id, task, routing_key, body, content_type, content_encoding, mandatory)
            VALUES ('another', 'shop.bill', 'nowhere', '', 'text/plain', 'utf-8', false);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER join_in AFTER INSERT ON outbox.message
    FOR EACH STATEMENT EXECUTE FUNCTION public.join_in();
"""


@pytest.fixture(autouse=True)
def environment(
    database: str, broker: Broker, monkeypatch: pytest.MonkeyPatch, own_logging: None
) -> None:
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


def test_it_leaves_the_history_alone(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent before, and what is sent by others meanwhile, is kept as long as it was to be.

    However long the measurement takes: retention has its turn all the time.
    """
    monkeypatch.setattr(retention, "PURGE_EVERY", 0.0)
    commit_rows(database, 3)
    with psycopg.connect(database) as connection:
        connection.execute(
            "WITH done AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.receipt (slot, span, ids)"
            " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done"
        )
        connection.execute(
            "UPDATE outbox.message SET slot = (slot + 13) % 16, created_at = now() - interval '2d'"
        )
        connection.execute("UPDATE outbox.receipt SET slot = (slot + 13) % 16")
        connection.execute(TRIGGER)

    assert main(["bench", "--messages", "100", "--json"]) == 0

    assert states(database) == {"pending": 0, "scheduled": 0, "sent": 4, "dead": 0}


def test_it_leaves_a_busy_outbox_alone(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Messages of others are not sent by a measurement."""
    commit_rows(database, 3)

    assert main(["bench"]) == 1

    assert "3 messages" in capsys.readouterr().out
    assert states(database)["pending"] == 3
