"""A second service, with plain kombu and without Celery, receives the events of the first."""

import sys
from pathlib import Path

import psycopg

from tests.examples.conftest import EXAMPLES, Run, environment
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Program, RelayFactory
from tests.fixtures.rows import states
from tests.fixtures.waiting import wait_until

EXPECTED = {
    "orders tea de",
    "orders tea ch",
    "news tea de",
    "news tea ch",
    "customs tea ch",
    "payments tea de",
    "payments tea ch",
}


def test_events_reach_another_service(
    example: Run, relay: RelayFactory, database: str, broker: Broker, tmp_path: Path
) -> None:
    """From topic, fanout, headers and direct exchanges: what it bound for, once, and no more."""
    command = [sys.executable, str(EXAMPLES / "events" / "accounting.py")]
    surroundings = environment(database) | {"BROKER_URL": broker.url}
    accounting = Program(command, tmp_path, surroundings)
    try:
        accounting.wait_for_output("ready")
        with psycopg.connect(database) as connection:
            connection.execute(
                "INSERT INTO outbox.message (message_id, task, exchange, routing_key, mandatory,"
                " body, content_type, content_encoding) VALUES ('other', 'order', 'orders',"
                " 'order.shipped.fr', false, '{}', 'application/json', 'utf-8')"
            )
        example("events", database, "shop.py", "tea")
        relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)

        wait_until(lambda: states(database)["sent"] == 9, 30, "all events sent")
        wait_until(lambda: len(heard(accounting)) >= len(EXPECTED), 30, "all events")
        assert sorted(heard(accounting)) == sorted(EXPECTED)
    finally:
        accounting.kill()


def heard(accounting: Program) -> list[str]:
    """The events it printed."""
    return [line for line in accounting.output().splitlines() if line != "ready"]
