"""What a consumer receives is, field for field, what plain Celery would have published."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import redis
from celery import Celery

from celery_outbox import OutboxCelery
from tests.fixtures.broker import Broker, Received
from tests.fixtures.programs import RelayFactory
from tests.fixtures.valkey import OwnValkey
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
#: On Redis, where no broker looks at properties, any of them; and what goes into headers.
MORE: dict[str, dict[str, Any]] = {
    **SHAPES,
    "properties": {
        "app_id": "shop",
        "cluster_id": "one",
        "correlation_id": "c-1",
        "message_id": "m-1",
        "timestamp": 1_900_000_000,
        "type": "bill",
        "user_id": "anna",
    },
    "text of its own": {"serializer": "yaml"},
    "durable by name": {"delivery_mode": "persistent"},
    "countdown": {"countdown": -5},
    "lifetime": {"expiration": 60},
    "shown": {"shadow": "shown as this"},
    "no result": {"ignore_result": True},
    "of a group": {"group_id": "g", "group_index": 1, "root_id": "r", "parent_id": "p"},
    "routed": {"exchange": "", "routing_key": "parcels"},
    "stamps": {"stamped_headers": ["who"], "who": ["me"]},
    "published with": {"retry": False, "mandatory": True, "immediate": False, "timeout": 5},
}
#: What kombu carries on Redis alone, in the properties of the message, and AMQP has no place for.
CARRIED_BY_REDIS: dict[str, dict[str, Any]] = {
    "nobody's option": {"flavour": "mint"},
    "what headers have as well": {"argsrepr": "(one)"},
}


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


def test_wire_equality_on_redis(own_valkey: OwnValkey, database: str, relay: RelayFactory) -> None:
    """Every option that Celery knows arrives alike; of others, which AMQP never carries, none."""
    valkey = own_valkey()
    plain = Celery("shop", broker=valkey.url, set_as_current=False)
    ours = OutboxCelery("shop", set_as_current=False)
    shapes = MORE | CARRIED_BY_REDIS
    with psycopg.connect(database) as connection, ours.outbox.transaction(connection):
        for name, options in shapes.items():
            ours.send_task("shop.bill", (1,), **_options(name, options))
    allowed = {"OUTBOX_ALLOW_CONTENT_TYPES": "*"}
    servers = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": valkey.url}
    relay("run", "--drain", **servers, **allowed).wait()
    through_outbox = _take_from_redis(valkey.url)
    for name, options in shapes.items():
        plain.send_task("shop.bill", (1,), **_options(name, options))
    by_celery = _take_from_redis(valkey.url)

    assert through_outbox.keys() == by_celery.keys() == shapes.keys()
    for name in CARRIED_BY_REDIS:
        (extra,) = by_celery[name]["properties"].keys() - through_outbox[name]["properties"].keys()
        assert by_celery[name]["properties"].pop(extra) == CARRIED_BY_REDIS[name][extra]
    for name in shapes:
        assert through_outbox[name] == by_celery[name], name


def _take_from_redis(url: str) -> dict[str, Any]:
    """Empty the lists of a Redis: messages by id, without what differs from send to send."""
    found: dict[str, Any] = {}
    with redis.Redis.from_url(url) as client:
        for key in client.keys("*"):
            while client.type(key) == b"list" and (text := client.lpop(key)):
                message = json.loads(text)
                headers, properties = message["headers"], message["properties"]
                found[headers["id"]] = message | {"list": key}
                for name in VOLATILE:
                    headers.pop(name, None)
                    properties.pop(name, None)
                del properties["delivery_tag"]
                for name in ("eta", "expires"):
                    headers[name] = headers[name] and "a time"
    return found


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
