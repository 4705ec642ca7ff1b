"""With quorum queues by default, eta, countdown and retries are held by the outbox all the same."""

from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import psycopg
import pytest

from tests.end_to_end.delayed import app, remind
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import ids_in
from tests.fixtures.waiting import wait_until

pytestmark = pytest.mark.skipif(
    celery.VERSION < (5, 5), reason="Celery consumes quorum queues since 5.5"
)

_DUE = """
SELECT message_id, extract(epoch FROM sent_at - m.available_at)::float
FROM outbox.sent JOIN outbox.message m USING (message_id)
"""


def test_on_a_broker_no_worker_has_ever_seen(
    connection: psycopg.Connection[Any], database: str, broker: Broker, relay: RelayFactory
) -> None:
    """Seen in `scheduled`, taken back, or sent at its time to its queue, which the relay declares.

    Nothing of Celery's delayed delivery is there, or missed.
    """
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    eta = datetime.now(UTC) + timedelta(seconds=3)
    with app.outbox.transaction(connection):
        by_eta = remind.apply_async(("eta", 1), eta=eta)
        by_countdown = remind.apply_async(("countdown", 1), countdown=3)
        soon = remind.apply_async(("soon", 1), countdown=0.9)
        taken_back = remind.apply_async(("never", 1), countdown=300)
    sent = {by_eta.id, by_countdown.id, soon.id}

    assert {by_eta.id, by_countdown.id, taken_back.id} <= ids_in(database, "scheduled")
    with connection.transaction():
        assert app.outbox.cancel(connection, taken_back.id)
    wait_until(lambda: ids_in(database, "sent") == sent, 20, "all three are sent")

    assert {message.headers["id"] for message in broker.take_all("orders")} == sent
    assert "celery_delayed" not in broker.ctl("list_exchanges", "name")
    assert "orders\tquorum" in broker.ctl("list_queues", "name", "type")
    late = dict(connection.execute(_DUE).fetchall())
    assert late.keys() == sent
    assert min(late.values()) >= 0


def test_the_retries_of_a_worker(
    connection: psycopg.Connection[Any],
    database: str,
    broker: Broker,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """Each waits in the outbox for its second, and comes back to the queue it was taken from."""
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    worker = celery_worker(
        "tests.end_to_end.delayed", OUTBOX_DATABASE_URL=database, LAB_BROKER_URL=broker.url
    )
    with app.outbox.transaction(connection):
        at_once = remind.delay("tea", 1.5)
        later = remind.apply_async(("coffee", 1.5), countdown=1.5)

    wait_until(lambda: at_once.id in ids_in(database, "scheduled"), 20, "a retry is scheduled")
    for name in ("tea", "coffee"):
        worker.wait_for_output(f"{name} 2 ")

    began = {name: _attempts(worker.output(), name) for name in ("tea", "coffee")}
    for first, second, third in began.values():
        assert 1.5 <= second - first < 4
        assert 1.5 <= third - second < 4
    rows = connection.execute("SELECT message_id, exchange, routing_key FROM outbox.message")
    ids = [at_once.id, later.id]
    assert sorted(rows) == sorted(3 * [(message_id, "orders", "orders") for message_id in ids])


def _attempts(output: str, name: str) -> list[float]:
    """When each attempt of a task began, in order."""
    said = [line.rpartition(f"{name} ")[2].split() for line in output.splitlines()]
    return [float(words[1]) for words in said if len(words) == 2 and words[0] in ("0", "1", "2")]
