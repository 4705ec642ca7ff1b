"""The example of the inbox, on a real worker: a duplicate has no effect, old rows are forgotten."""

import shutil
from pathlib import Path

import psycopg
import pytest
from celery import Celery

from tests.examples.conftest import EXAMPLES
from tests.fixtures.programs import WorkerFactory
from tests.fixtures.waiting import wait_until

SECONDS = 30


@pytest.mark.parametrize("pool", ["prefork", "gevent", "threads", "solo"])
def test_exactly_once(
    celery_worker: WorkerFactory, database: str, valkey_url: str, tmp_path: Path, pool: str
) -> None:
    """On every pool: a message that is delivered twice charges once, and sends one receipt."""
    shutil.copy(EXAMPLES / "exactly_once" / "shop.py", tmp_path)
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE charges (order_id int, amount int)")
        connection.execute("CREATE TABLE receipts (order_id int)")
        connection.execute(
            "INSERT INTO inbox.processed VALUES ('old', 'shop.charge', now() - interval '15 days')"
        )
    worker = celery_worker("shop", f"--pool={pool}", BROKER_URL=valkey_url, DATABASE_URL=database)
    with Celery("sender", broker=valkey_url, set_as_current=False) as sender:
        for _ in range(2):
            sender.send_task("shop.charge", (7, 100), task_id="order-7")
        sender.send_task("shop.forget_old_messages")
    worker.wait_for_output("ran before: answering with its result", SECONDS)
    with psycopg.connect(database, autocommit=True) as connection:

        def processed() -> list[tuple[str]]:
            return connection.execute("SELECT message_id FROM inbox.processed").fetchall()

        wait_until(lambda: processed() == [("order-7",)], SECONDS, "the old row to go")

        assert connection.execute("SELECT * FROM charges").fetchall() == [(7, 100)]
        sent = connection.execute("SELECT task FROM outbox.message").fetchall()
        assert sent == [("shop.send_receipt",)]
