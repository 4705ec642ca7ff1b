"""From the table to an unmodified Celery worker, through the real relay and a real server."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis

from servers import Valkey
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import commit_rows, ids_in, insert_rows, states
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until
from tests.relay.broker.redis.conftest import Client

OPTIONS = '{"global_keyprefix": "shop:"}'


def a_task(word: str, **columns: Any) -> dict[str, Any]:
    """The columns of a row that has the task `shop.note` run once."""
    id_ = str(uuid4())
    headers: dict[str, Any] = {"lang": "py", "task": "shop.note", "id": id_, "root_id": id_}
    headers |= dict.fromkeys(("eta", "expires", "parent_id", "group"))
    properties = {"correlation_id": id_, "reply_to": str(uuid4()), "delivery_mode": 2}
    priority = {"priority": columns.pop("priority", 0)}
    return {
        "message_ids": [id_],
        "task": "shop.note",
        "headers": json.dumps(headers),
        "properties": json.dumps(properties | priority),
        "body": json.dumps([[word], {}, {"callbacks": None, "errbacks": None}]).encode(),
        **columns,
    }


def test_a_worker_runs_what_reaches_it_by_any_kind_of_exchange(
    valkey: Valkey,
    database: str,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
    tmp_path: Path,
) -> None:
    """Default, direct, topic and fanout, under Celery's own transport options."""
    notes = tmp_path / "notes"
    celery_worker("tests.relay.broker.redis.shop", BROKER_URL=valkey.url, NOTES=str(notes))
    relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=valkey.url.replace("redis://", "valkey://"),
        OUTBOX_BROKER_TRANSPORT_OPTIONS=OPTIONS,
    )
    with psycopg.connect(database) as connection:
        for columns in (
            a_task("default"),
            a_task("urgent", priority=9),
            a_task("direct", exchange="orders", routing_key="bill"),
            a_task("topic", exchange="events", routing_key="order.paid"),
            a_task("fanout", exchange="news", routing_key="celery", mandatory=False),
        ):
            insert_rows(connection, **columns)

    expected = {"default", "urgent", "direct", "topic", "fanout"}
    wait_until(lambda: notes.exists() and len(notes.read_text().split()) == 5, 30, "five notes")
    assert set(notes.read_text().split()) == expected
    wait_until(lambda: states(database)["sent"] == 5, 10, "all of them sent")


def test_what_reaches_no_queue_is_kept(valkey: Valkey, database: str, relay: RelayFactory) -> None:
    """It counts as returned, is tried again, and dies where an operator finds it."""
    running = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=valkey.url,
        OUTBOX_MAX_ATTEMPTS="2",
        OUTBOX_RETRY_DELAY="10ms",
    )
    (lost,) = commit_rows(database, exchange="nowhere", routing_key="bill")

    wait_until(lambda: ids_in(database, "dead") == {lost}, 20, "its death")
    assert "outbox_returned_total 2.0" in running.metrics()


def holds_more_than(client: Client, messages: int) -> bool:
    """Whether the queue is longer than that."""
    return bool(client.llen("celery") > messages)


@pytest.mark.parametrize(
    ("level", "appendfsync"), [("memory", "always"), ("fsync", "always"), ("fsync", "everysec")]
)
def test_a_crash_in_mid_drain_loses_nothing_that_was_confirmed(
    own_valkey: OwnValkey, database: str, relay: RelayFactory, level: str, appendfsync: str
) -> None:
    """The server is killed again and again, each time after it has taken some more."""
    server = own_valkey({"appendfsync": appendfsync})
    relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=server.url,
        OUTBOX_REDIS_CONFIRM=level,
        OUTBOX_BATCH_SIZE="50",
        OUTBOX_WINDOW="500",
    )
    committed: set[str] = set()
    with redis.Redis.from_url(server.url) as client:
        for crash in (1, 2, 3):
            with psycopg.connect(database) as connection, connection.pipeline():
                for number in range(2000):
                    committed |= set(insert_rows(connection, **a_task(f"{crash}-{number}")))
            some = len(committed) - 1800
            wait_until(partial(holds_more_than, client, some), 30, "a part of it")
            server.kill()
            server.start()
        wait_until(lambda: states(database)["sent"] == len(committed), 60, "all of it sent")

        arrived = [json.loads(each)["headers"]["id"] for each in client.lrange("celery", 0, -1)]
    assert set(arrived) == committed
    assert len(arrived) == len(committed), "the marker knows what had arrived before the crash"
