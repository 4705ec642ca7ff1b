"""What a worker cannot begin is in the dead letters with its reason, on every kind of queue."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from redis import Redis

from celery_inbox import reliable
from celery_inbox.keeping import PUT_ASIDE
from tests.fixtures.broker import Broker
from tests.fixtures.programs import Program, WorkerFactory
from tests.fixtures.waiting import wait_until
from tests.worker import knowing

SECONDS = 60.0
Headers = dict[str, Any]
Send = Callable[[Celery], str]


def unregistered(app: Celery) -> str:
    """A task of a newer sender."""
    return str(app.send_task("shop.unknown").id)


def undecodable(app: Celery) -> str:
    """A body that is not what its content type says."""
    return _raw(app, b"{not json", "application/json")


def refused(app: Celery) -> str:
    """A content type that this worker does not accept."""
    return _raw(app, b"\x80", "application/x-python-serialize")


def no_task(app: Celery) -> str:
    """Something else altogether."""
    with app.connection_for_write() as connection:
        connection.Producer().publish({"order": 1}, routing_key="celery", headers={"id": "no-task"})
    return "no-task"


def _raw(app: Celery, body: bytes, content_type: str) -> str:
    with app.connection_for_write() as connection:
        connection.Producer().publish(
            body,
            routing_key="celery",
            content_type=content_type,
            content_encoding="utf-8",
            headers={"id": content_type, "task": "shop.known", "lang": "py"},
        )
    return content_type


MESSAGES = pytest.mark.parametrize(
    ("send", "reason"),
    [
        (unregistered, "unregistered task"),
        (undecodable, "undecodable body (DecodeError)"),
        (refused, "invalid task (ContentDisallowed)"),
        (no_task, "not a task"),
    ],
    ids=["unregistered", "undecodable", "refused", "no-task"],
)


@MESSAGES
@pytest.mark.parametrize("quorum", ["1", "0"], ids=["quorum", "classic"])
def test_on_rabbitmq(
    broker: Broker, celery_worker: WorkerFactory, quorum: str, send: Send, reason: str
) -> None:
    """Put there with a confirm, whatever the kind of the queue; then the queue is empty."""
    celery_worker(knowing.__name__, KNOWING_BROKER=broker.url, KNOWING_QUORUM=quorum)
    with Celery("sender", broker=broker.url, set_as_current=False) as sender:
        reliable(sender, quorum=quorum == "1")
        id = send(sender)

    wait_until(lambda: broker.depth("celery.dead") == 1, SECONDS, "a dead letter")
    wait_until(lambda: broker.depth("celery") == 0, SECONDS, "an empty queue")
    [dead] = broker.take_all("celery.dead")
    assert dead.headers["id"] == id
    assert dead.headers[PUT_ASIDE]["reason"] == reason
    assert dead.headers[PUT_ASIDE]["queue"] == "celery"


@MESSAGES
def test_on_redis(valkey_url: str, celery_worker: WorkerFactory, send: Send, reason: str) -> None:
    """In a list beside the queue; nothing is left unacknowledged."""
    celery_worker(knowing.__name__, KNOWING_BROKER=valkey_url)
    with Celery("sender", broker=valkey_url, set_as_current=False) as sender:
        id = send(sender)
    redis: Any = Redis.from_url(valkey_url)

    wait_until(lambda: redis.llen("celery.dead") == 1, SECONDS, "a dead letter")
    wait_until(lambda: redis.hlen("unacked") == 0, SECONDS, "an acknowledgement")
    dead = json.loads(redis.lindex("celery.dead", 0))
    assert dead["headers"]["id"] == id
    assert dead["headers"][PUT_ASIDE]["reason"] == reason
    assert redis.llen("celery") == 0


@pytest.mark.parametrize("url", ["broker_url", "valkey_url"], ids=["rabbitmq", "valkey"])
def test_killed_between_putting_it_aside_and_the_acknowledgement(
    request: pytest.FixtureRequest, celery_worker: WorkerFactory, tmp_path: Path, url: str
) -> None:
    """It is put aside twice, by the worker that was killed and by the next, and never lost."""
    broker = str(request.getfixturevalue(url))
    environment = {"KNOWING_BROKER": broker, "KNOWING_KILLED": str(tmp_path / "killed")}
    first = celery_worker(knowing.__name__, **environment)
    with Celery("sender", broker=broker, set_as_current=False) as sender:
        if url == "broker_url":
            reliable(sender)
        sender.send_task("shop.unknown", task_id="unknown")
    first.wait_for_output("put into celery.dead", SECONDS)
    wait_until(lambda: first.process.poll() is not None, SECONDS, "its death")
    first.kill()

    second = celery_worker(knowing.__name__, **environment)
    second.wait_for_output("put into celery.dead", SECONDS)
    with Connection(broker) as connection:
        found = [dead.headers["id"] for dead in iter(lambda: taken(connection), None)]
    assert found == ["unknown", "unknown"]


def taken(connection: Connection) -> Any:
    """The next dead letter."""
    channel: Any = connection.default_channel
    return channel.basic_get("celery.dead", no_ack=True)


def test_the_known_go_on_beside_it(valkey_url: str, celery_worker: WorkerFactory) -> None:
    """A hundred unknown tasks among as many known ones: all known ones run."""
    worker = celery_worker(knowing.__name__, KNOWING_BROKER=valkey_url)
    with Celery("sender", broker=valkey_url, set_as_current=False) as sender:
        for _ in range(100):
            sender.send_task("shop.unknown")
            sender.send_task("shop.known")
    redis: Any = Redis.from_url(valkey_url)

    wait_until(lambda: redis.llen("celery.dead") == 100, SECONDS, "the dead letters")
    wait_until(lambda: succeeded(worker) == 100, SECONDS, "the others")


def test_a_message_that_cannot_be_put_aside_stays(
    broker: Broker, celery_worker: WorkerFactory
) -> None:
    """Somebody has deleted the queue of dead letters: it is still the queue's own message."""
    worker = celery_worker(knowing.__name__, KNOWING_BROKER=broker.url, KNOWING_QUORUM="0")
    with Connection(broker.url) as connection:
        channel: Any = connection.default_channel
        channel.queue_delete("celery.dead")
    with Celery("sender", broker=broker.url, set_as_current=False) as sender:
        reliable(sender, quorum=False)
        sender.send_task("shop.unknown")
    worker.wait_for_output("it goes back to its queue", SECONDS)

    worker.kill()
    wait_until(lambda: broker.depth("celery") == 1, SECONDS, "the message")


def succeeded(worker: Program) -> int:
    """How many tasks have run."""
    return worker.output().count("succeeded in")
