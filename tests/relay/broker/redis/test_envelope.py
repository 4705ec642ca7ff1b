"""What we put into Redis is what kombu puts there, byte for byte but for the delivery tag."""

import json
from typing import Any
from uuid import UUID

import pytest
import redis
from kombu import Connection
from kombu.utils.json import dumps

from outbox_relay.broker.redis.envelope import delivery_tags, envelope
from outbox_relay.errors import Unpublishable
from servers import Valkey
from tests.relay.messages import a_message

TAG = b"7b1f9a34-0f5e-4a61-a6a1-0d5f6c1f3d11"

DEEP = "[" * 30_000 + "]" * 30_000  # deeper than a test before may have let Python go

SHAPES: list[dict[str, Any]] = [
    {"properties": {"correlation_id": "1", "reply_to": "2", "delivery_mode": 2, "priority": 0}},
    {"properties": {"correlation_id": "1", "delivery_mode": 2, "priority": 7}},
    {"properties": {"priority": 3}},
    {"properties": {"delivery_mode": 1}},
    {"properties": {}},
    {"headers": {"lang": "py", "eta": "ünïcøde \u2028 \U0001f600", "deep": [{"a": None}]}},
    {"body": b"", "content_type": "application/data", "content_encoding": "binary"},
    {"body": bytes(range(256)) * 100},
    {"routing_key": 'a "quoted" kéy\\'},
]


def by_kombu(valkey: Valkey, shape: dict[str, Any]) -> bytes:
    """What kombu itself pushes."""
    with Connection(valkey.url) as connection:
        channel: Any = connection.default_channel
        properties = dict(shape.get("properties", {}))
        ordinary = a_message()
        prepared = channel.prepare_message(
            shape.get("body", ordinary.body),
            priority=properties.pop("priority", None),
            content_type=shape.get("content_type", ordinary.content_type),
            content_encoding=shape.get("content_encoding", ordinary.content_encoding),
            headers=shape.get("headers", {}),
            properties=properties,
        )
        channel.basic_publish(prepared, "", shape.get("routing_key", "celery"))
    with redis.Redis.from_url(valkey.url) as client:
        (key,) = (key for key in client.keys("*") if client.type(key) == b"list")
        return bytes(client.lpop(key) or b"")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kombus_own_bytes(valkey: Valkey, shape: dict[str, Any]) -> None:
    """The same keys in the same order, and the same escapes."""
    expected = by_kombu(valkey, shape)
    stored = {name: dumps(shape.get(name, {})) for name in ("headers", "properties")}

    _, ours = envelope(a_message(**{**shape, **stored}), TAG)

    tag = json.loads(expected)["properties"]["delivery_tag"].encode()
    assert ours == expected.replace(tag, TAG)


@pytest.mark.parametrize(
    ("properties", "priority"),
    [
        ('{"priority": 5}', 5),
        ('{"priority":5,"delivery_mode":2}', 5),
        ('{"priority": 5, "correlation_id": "1"}', 5),
        ('{"correlation_id": "\\"priority\\": 9"}', 0),
        ('{"correlation_id": "x, \\"priority\\": 9", "priority": 2}', 2),
        ("{ }", 0),
        ('{"reply_to" : "x"} ', 0),
        ('{"reply_to": "priority"}', 0),
        ('{"x": {"priority": 5}}', 0),
        ('{"x": {"priority": 5}, "priority": 3, "y": 1}', 3),
    ],
)
def test_the_priority_is_found_wherever_it_stands(properties: str, priority: int) -> None:
    """Rows may be written by hand, with any spacing and order."""
    found, text = envelope(a_message(properties=properties), TAG)

    expected = {**json.loads(properties), "priority": priority}
    decoded = json.loads(text)["properties"]
    assert found == priority
    assert {name: decoded[name] for name in expected} == expected
    assert decoded["delivery_info"] == {"exchange": "", "routing_key": "celery"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"headers": "[]"}, "JSON objects"),
        ({"properties": "null"}, "JSON objects"),
        ({"properties": '{"priority": "high"}'}, "priority: it is not a number from 0 to 255"),
        ({"properties": '{"priority": 256}'}, "priority: it is not a number from 0 to 255"),
        ({"properties": '{"priority": ' + "7" * 5000 + "}"}, "^properties cannot be read: Value"),
        ({"properties": '{"priority": 1, "x": ' + DEEP + "}"}, "^properties cannot be read: Recur"),
    ],
)
def test_what_no_worker_could_read_is_refused(columns: dict[str, Any], words: str) -> None:
    """The refusal says what is wrong with the row."""
    with pytest.raises(Unpublishable, match=words):
        envelope(a_message(**columns), TAG)


def test_delivery_tags_are_uuids_and_all_different() -> None:
    """A worker keeps what it has not acknowledged under this name: two alike would lose one."""
    tags = [tag.decode() for tag in delivery_tags(bytes(range(9)), 1000)]

    assert len(set(tags)) == 1000
    assert [str(UUID(tag)) for tag in tags] == tags
    assert {UUID(tag).version for tag in tags} == {4}
