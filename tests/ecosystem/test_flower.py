"""Flower: knows a task once a worker has it; its "revoke" does not reach a row, `cancel` does."""

import json
import os
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psycopg

from celery_outbox import OutboxCelery
from servers.ports import free_port
from tests.ecosystem.conftest import ProgramFactory
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import ids_in
from tests.fixtures.waiting import wait_until

SECONDS = 60
MODULE = "tests.ecosystem.test_flower"

app = OutboxCelery("shop", broker=os.environ.get("BROKER_URL"), set_as_current=False)


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    """Add."""
    return x + y


class Flower:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._address = address

    def info(self, task_id: str) -> dict[str, Any] | None:
        """What it knows of a task; None: nothing yet, as long as it starts as well."""
        try:
            with urlopen(f"{self._address}/api/task/info/{task_id}", timeout=5) as answer:
                return dict(json.load(answer))
        except (HTTPError, URLError, ConnectionError):
            return None

    def revoke(self, task_id: str) -> int:
        """Have workers told not to run it."""
        request = Request(f"{self._address}/api/task/revoke/{task_id}", b"", method="POST")
        with urlopen(request, timeout=5) as answer:
            return int(answer.status)

    def succeeded(self, task_id: str) -> bool:
        """Whether it shows the task's success."""
        return (self.info(task_id) or {}).get("state") == "SUCCESS"


def test_flower_beside_the_outbox(
    program: ProgramFactory,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
    database: str,
    valkey_url: str,
) -> None:
    """Tasks appear as a worker gets them; what waits in the outbox is taken back with `cancel`."""
    port = free_port()
    celery_worker(MODULE, "--task-events", BROKER_URL=valkey_url)
    program(
        "celery", "-A", MODULE, "flower", f"--port={port}", "--address=127.0.0.1",
        BROKER_URL=valkey_url, FLOWER_UNAUTHENTICATED_API="true",
    )  # fmt: skip
    flower = Flower(f"http://127.0.0.1:{port}")
    with psycopg.connect(database) as connection, app.outbox.using(connection):
        sent = add.delay(1, 2)
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=valkey_url)
    wait_until(lambda: flower.succeeded(sent.id), SECONDS, "the task in Flower")

    with psycopg.connect(database) as connection:
        with app.outbox.using(connection):
            later = add.apply_async((5, 6), countdown=3600)
        connection.commit()
        assert flower.revoke(later.id) == 200
        assert flower.info(later.id) is None
        assert ids_in(database, "scheduled") == {later.id}
        assert app.outbox.cancel(connection, later.id)
    assert ids_in(database, "scheduled") == set()
