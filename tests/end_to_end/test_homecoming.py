"""What RabbitMQ or a worker gives up is dead in the outbox with the reason, and retry heals it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import commit_rows, ids_in
from tests.fixtures.waiting import wait_until
from tests.worker import deadly, knowing
from tests.worker.ledger import Ledger

SECONDS = 90.0
DEAD = "SELECT message_id, last_error FROM outbox.dead"


def task(database: str, name: str) -> str:
    """A task of that name, as SQL sends it."""
    ledger = Ledger(database)
    [(id,)] = ledger.run("SELECT outbox.enqueue(%s)", name)
    return str(id)


def a_row(database: str) -> str:
    """A message with Celery's header of its id."""
    id = commit_rows(database)[0]
    Ledger(database).run(
        "UPDATE outbox.message SET headers = json_build_object('id', message_id, 'task', task)"
    )
    return id


def wait_for_death(database: str, *ids: str) -> list[str]:
    """The reasons, once all of these are dead."""
    wait_until(lambda: ids_in(database, "dead") >= set(ids), SECONDS, "dead letters at home")
    return sorted(reason for _, reason in Ledger(database).run(DEAD))


def expired(queue: Any) -> None:
    """Nobody takes it in time."""


def rejected(queue: Any) -> None:
    """Somebody refuses it."""
    with queue() as channel:
        message = wait_until(lambda: channel.basic_get("celery"), SECONDS, "the message")
        channel.basic_reject(message.delivery_tag, requeue=False)


@pytest.mark.parametrize(
    ("arguments", "happen", "reason", "count"),
    [
        ({"x-message-ttl": 50}, expired, "expired: dead letter of queue 'celery', 1 time(s)", 1),
        ({}, rejected, "rejected: dead letter of queue 'celery', 1 time(s)", 1),
        ({"x-max-length": 1}, expired, "overflow: dead letter of queue 'celery', 1 time(s)", 2),
    ],
    ids=["expired", "rejected", "overflow"],
)
def test_what_rabbitmq_gives_up(
    database: str,
    broker: Broker,
    relay: RelayFactory,
    arguments: dict[str, Any],
    happen: Callable[[Any], None],
    reason: str,
    count: int,
) -> None:
    """Each of its reasons, by its own name."""
    broker.declare("celery.dead")
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "celery.dead"}
    broker.declare("celery", **dead, **arguments)
    ids = [a_row(database) for _ in range(count)]

    @contextmanager
    def channel() -> Iterator[Any]:
        with Connection(broker.url) as connection:
            yield connection.default_channel

    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    happen(channel)
    assert wait_for_death(database, *ids[:1]) == [reason]


def test_a_task_that_keeps_killing_its_worker(
    database: str, broker: Broker, relay: RelayFactory, celery_worker: WorkerFactory
) -> None:
    """The delivery limit of a quorum queue that `reliable()` has declared."""
    running = relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    celery_worker(deadly.__name__, DEADLY_BROKER=broker.url)
    id = task(database, f"{deadly.__name__}.die")

    [reason] = wait_for_death(database, id)
    assert reason.startswith("delivery limit: dead letter of queue 'celery'")
    assert 'outbox_dead_letters_home_total{reason="delivery limit"} 1.0' in running.metrics()


@pytest.mark.parametrize("kind", ["rabbitmq", "valkey"])
def test_a_task_that_no_worker_knew_runs_after_a_retry(
    request: pytest.FixtureRequest,
    kind: str,
    database: str,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
) -> None:
    """It was sent too early: once a worker that knows it is there, retry has it run."""
    url = request.getfixturevalue("broker_url" if kind == "rabbitmq" else "valkey_url")
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=url)
    old = celery_worker(knowing.__name__, KNOWING_BROKER=url)
    id = task(database, "shop.new")
    [reason] = wait_for_death(database, id)
    assert reason.startswith("unregistered task: worker ")

    old.stop()
    new = celery_worker(knowing.__name__, KNOWING_BROKER=url, KNOWING_TASKS="shop.new")
    Ledger(database).run("SELECT outbox.retry(%s)", id)
    new.wait_for_output(f"Task shop.new[{id}] succeeded", SECONDS)
    assert ids_in(database, "dead") == set()
