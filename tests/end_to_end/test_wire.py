"""What a consumer receives is, field for field, what plain Celery would have published."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from celery import Celery

from celery_outbox import OutboxCelery
from tests.fixtures.broker import Broker, Received
from tests.fixtures.programs import RelayFactory
from tests.fixtures.waiting import wait_until

ETA = datetime.now(UTC) - timedelta(seconds=5)  # due at once, so that both can be compared
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "eta": {"eta": ETA},
    "expires": {"expires": 3600},
    "priority": {"priority": 7},
    "headers": {"headers": {"trace": "a-b-c", "deep": {"list": [1, 2.5, None, True, "ü"]}}},
    "gzip": {"compression": "gzip"},
    "pickle": {"serializer": "pickle"},
    "queue": {"queue": "parcels"},
    "transient": {"delivery_mode": 1},
    "limits": {"time_limit": 30, "soft_time_limit": 20},
    "link": {"link": [{"task": "shop.after", "args": [], "kwargs": {}, "options": {}}]},
    "large": {"kwargs": {"text": "x" * 300_000}},
}
#: Chosen anew by every process or send; equal in kind, not in value.
VOLATILE = ("origin", "reply_to")


def test_wire_equality(broker: Broker, database: str, relay: RelayFactory) -> None:
    """A dozen shapes of message arrive alike, whether sent by Celery or through the outbox."""
    plain = Celery("shop", broker=broker.url, set_as_current=False)
    ours = OutboxCelery("shop", set_as_current=False)
    with psycopg.connect(database) as connection, ours.outbox.transaction(connection):
        for name, options in SHAPES.items():
            ours.send_task("shop.bill", (1,), **_options(name, options))
    allowed = {"OUTBOX_ALLOW_CONTENT_TYPES": "*"}  # pickle among them
    servers = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
    relay("run", "--drain", **servers, **allowed).wait()
    through_outbox = _take(broker)
    for name, options in SHAPES.items():
        plain.send_task("shop.bill", (1,), **_options(name, options))
    wait_until(lambda: _waiting(broker) == len(SHAPES), 10, "plain Celery's messages")
    by_celery = _take(broker)

    assert through_outbox.keys() == by_celery.keys() == SHAPES.keys()
    for name in SHAPES:
        assert _comparable(through_outbox[name]) == _comparable(by_celery[name]), name


def _options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"task_id": name, "kwargs": {"order": 42}, **options}


def _waiting(broker: Broker) -> int:
    return sum(broker.depth(queue) for queue in ("celery", "parcels") if broker.has(queue))


def _take(broker: Broker) -> dict[str, Received]:
    received = [m for queue in ("celery", "parcels") for m in broker.take_all(queue)]
    return {str(message.headers["id"]): message for message in received}


def _comparable(message: Received) -> dict[str, Any]:
    headers = {k: v for k, v in message.headers.items() if k not in VOLATILE}
    if headers["expires"]:
        headers["expires"] = "a time"
    properties = {k: v for k, v in message.properties.items() if k not in VOLATILE}
    if "expiration" in properties:
        properties["expiration"] = "milliseconds"
    return {
        "body": message.body,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "headers": headers,
        "properties": properties,
    }
