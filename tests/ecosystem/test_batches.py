"""celery-batches: messages of the outbox come in batches; a batch that raises is acknowledged."""

import os
from typing import Any

import psycopg
import redis
from celery.exceptions import Reject
from celery_batches import Batches

from celery_outbox import OutboxCelery
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import states
from tests.fixtures.waiting import wait_until

SECONDS = 60
MODULE = "tests.ecosystem.test_batches"

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"), set_as_current=False)
app.conf.worker_prefetch_multiplier = 10
app.conf.task_acks_late = True


@app.task(base=Batches, flush_every=3, flush_interval=60, name="shop.count")
def count(requests: Any) -> None:
    """Write down how many came together."""
    with psycopg.connect(os.environ["OUTBOX_DATABASE_URL"]) as connection:
        connection.execute("INSERT INTO effect VALUES (%s)", (f"{len(requests)} together",))


@app.task(base=Batches, flush_every=2, flush_interval=60, name="shop.fail")
def fail(requests: Any) -> None:
    """Give the messages back, as plain tasks do."""
    raise Reject(f"{len(requests)} at once", requeue=True)


def test_batches(
    relay: RelayFactory,
    celery_worker: WorkerFactory,
    database: str,
    valkey_url: str,
    effects: Any,
) -> None:
    """What one transaction has sent is one batch; one that raises `Reject` does not come back."""
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=valkey_url)
    worker = celery_worker(MODULE, BROKER_URL=valkey_url, OUTBOX_DATABASE_URL=database)
    with psycopg.connect(database) as connection, app.outbox.using(connection):
        for shelf in range(3):
            count.delay(shelf)
    wait_until(lambda: effects() == ["3 together"], SECONDS, "a batch")

    with psycopg.connect(database) as connection, app.outbox.using(connection):
        for shelf in range(2):
            fail.delay(shelf)
    worker.wait_for_output("2 at once", SECONDS)
    wait_until(lambda: states(database)["sent"] == 5, SECONDS, "all sent")
    broker = redis.Redis.from_url(valkey_url)
    left = wait_until(
        lambda: broker.hlen("unacked") == 0 and [broker.llen("celery")], SECONDS, "acknowledgements"
    )
    assert left == [0]
