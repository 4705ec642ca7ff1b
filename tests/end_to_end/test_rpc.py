"""Results by `rpc://`: an answer that comes before anybody asks for it is kept."""

from typing import Any

import psycopg

from celery_outbox import OutboxCelery
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory, WorkerFactory


def test_an_answer_before_it_is_asked_for(
    broker: Broker, database: str, relay: RelayFactory, celery_worker: WorkerFactory
) -> None:
    """The relay declares the reply queue, which travels with the row, before it publishes."""
    app: Any = OutboxCelery("rpc", broker=broker.url, backend="rpc://", set_as_current=False)
    with psycopg.connect(database) as connection, app.outbox.using(connection):
        result = app.send_task("tests.end_to_end.tasks.add", (1, 2))
    worker = celery_worker(
        "tests.end_to_end.tasks", LAB_BROKER_URL=broker.url, LAB_RESULTS_URL="rpc://"
    )
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    worker.wait_for_output("succeeded")

    assert result.get(timeout=20) == 3
