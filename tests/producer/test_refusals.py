"""What no relay could publish is refused where it is sent, naming the task and the field."""

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection as Broker
from kombu import Producer
from kombu.exceptions import EncodeError

from celery_outbox import (
    InvalidSetting,
    NoTransaction,
    UnpublishableMessage,
    UnsupportedOption,
)
from celery_outbox.dispatch import dispatch_of
from tests.producer.conftest import Connection, Shop, Stored

DEEP: dict[str, Any] = {"a": [{"b": uuid4()}]}


def nested(levels: int) -> Any:
    """Return a list in a list in a list."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


UNPUBLISHABLE: dict[str, tuple[dict[str, Any], str]] = {
    "long routing key": ({"exchange": "x", "routing_key": "k" * 256}, "routing_key is longer"),
    "long in bytes": ({"exchange": "x", "routing_key": "ü" * 128}, "routing_key is longer"),
    "long task id": ({"task_id": "i" * 256}, "the task id is longer"),
    "task id of another type": ({"task_id": 42}, "the task id must be a string, not int"),
    "NUL in the task id": ({"task_id": "a\0b"}, "the task id has a NUL"),
    "long correlation id": ({"correlation_id": "c" * 300}, "correlation_id is longer"),
    "reply_to of another type": ({"reply_to": 7}, "reply_to must be a string"),
    "priority too high": ({"priority": 256}, "priority must be an integer from 0 to 255"),
    "priority negative": ({"priority": -1}, "priority must be"),
    "priority no number": ({"priority": "high"}, "priority must be"),
    "delivery mode unknown": ({"delivery_mode": 7}, "delivery_mode must be"),
    "timestamp negative": ({"timestamp": -1}, "timestamp must be"),
    "expiration negative": ({"expiration": -5}, "expiration must not be negative"),
    "a type AMQP lacks": ({"headers": {"x": uuid4()}}, "header x is of type UUID"),
    "deep inside": ({"headers": DEEP}, r"header a\[0\]\.b is of type UUID"),
    "a date": ({"headers": {"x": date(2026, 1, 1)}}, "header x is of type date"),
    "a set": ({"headers": {"x": {1}}}, "header x is of type set"),
    "time before 1970": ({"headers": {"x": datetime(1969, 1, 1, tzinfo=UTC)}}, "before 1970"),
    "not a number": ({"headers": {"x": math.nan}}, "header x is not finite"),
    "infinite": ({"headers": {"x": -math.inf}}, "header x is not finite"),
    "large integer": ({"headers": {"x": 2**63}}, "beyond 64 bits"),
    "large decimal": ({"headers": {"x": Decimal("12345678901")}}, "beyond .* decimal"),
    "decimal not a number": ({"headers": {"x": Decimal("NaN")}}, "beyond .* decimal"),
    "NUL in a header": ({"headers": {"x": "a\0b"}}, "header x has a NUL"),
    "half a pair in a header": ({"headers": {"x": ["\ud800"]}}, "header x has a NUL, or half"),
    "header name no text": ({"headers": {1: "x"}}, "name of header 1 must be a string"),
    "long header name": ({"headers": {"n" * 256: 1}}, "name of header n+ is longer"),
    "mark of a coded value": ({"headers": {"x": {"__type__": 1, "__value__": 2}}}, "__type__"),
    "headers over a frame": ({"headers": {"x": "y" * 130_000}}, "headers are larger"),
    "many small headers": ({"headers": {"x": [1] * 35_000}}, "headers are larger"),
    "unserialisable argument": (
        {"args": (object(), 0)},
        "an argument cannot be serialised: of type object",
    ),
    "nested too deeply": ({"headers": {"x": nested(100_000)}}, "headers are nested too deeply"),
    "argument nested too deeply": ({"args": (nested(100_000), 0)}, "an argument cannot be"),
    "object as property": ({"cluster_id": object()}, "cluster_id must be a string"),
}


@pytest.mark.parametrize("case", UNPUBLISHABLE)
def test_unpublishable(shop: Shop, connection: Connection, stored: Stored, case: str) -> None:
    """The call raises, naming the task and the field; the transaction goes on without it."""
    options, problem = UNPUBLISHABLE[case]
    with connection, shop.app.outbox.using(connection):
        with pytest.raises(
            UnpublishableMessage, match=rf"(?s)shop\.add cannot be sent: .*{problem}"
        ):
            shop.add.apply_async(**{"args": (1, 0), **options})
        shop.add.delay(2, 0)

    assert stored.args() == [2]


def test_a_body_over_the_limit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body no broker takes is refused before it crosses the network, with both sizes named."""
    shop.app.conf.outbox_database_url = "postgresql:///none"
    monkeypatch.setattr(dispatch_of(shop.app), "carry_out", lambda *_: pytest.fail("stored"))
    with pytest.raises(
        UnpublishableMessage,
        match=r"the body has 167772\d\d bytes, more than the 16777216 of outbox_max_body",
    ):
        shop.add.delay("z" * 16_777_200, 0)


def test_the_limit_of_a_body_is_a_setting(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, connection: Connection, stored: Stored
) -> None:
    """It holds for tasks and events alike; a smaller body is stored."""
    monkeypatch.setitem(shop.app.conf, "outbox_max_body", 1000)
    with connection, shop.app.outbox.using(connection):
        with pytest.raises(UnpublishableMessage, match="of outbox_max_body"):
            shop.add.delay("z" * 1000, 0)
        with pytest.raises(UnpublishableMessage, match="of outbox_max_body"):
            shop.app.outbox.publish(connection, "z" * 1001, exchange="events")
        shop.add.delay("z" * 100, 0)

    assert stored.args() == ["z" * 100]


@pytest.mark.parametrize("value", [0, -1, "many", 1.5, True, 134_217_729])
def test_a_malformed_limit_is_named(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    """A send says what is wrong, and so does a worker as it starts."""
    monkeypatch.setitem(shop.app.conf, "outbox_max_body", value)
    shop.app.conf.outbox_database_url = "postgresql:///none"
    monkeypatch.setattr(dispatch_of(shop.app), "carry_out", lambda *_: pytest.fail("stored"))
    with pytest.raises(InvalidSetting, match="outbox_max_body must be a number of bytes from 1 to"):
        shop.add.delay(1, 0)
    with pytest.raises(InvalidSetting, match="outbox_max_body"):
        dispatch_of(shop.app).begin_work()


def test_limits_are_accepted(shop: Shop, connection: Connection, stored: Stored) -> None:
    """What lies just within the limits is stored, constraints of the table included."""
    with connection, shop.app.outbox.using(connection):
        shop.add.apply_async(
            (1, 0),
            task_id="i" * 255,
            exchange="x" * 255,
            routing_key="ü" * 127,
            priority=255,
            headers={
                "n" * 255: 2**63 - 1,
                "low": -(2**63),
                "decimal": Decimal("123456789e-9"),
                "frame": "y" * 120_000,
            },
        )

    assert stored.args() == [1]


def test_is_the_error_celery_raises(shop: Shop, connection: Connection) -> None:
    """Code that catches kombu's EncodeError goes on working."""
    with shop.app.outbox.using(connection), pytest.raises(EncodeError):
        shop.add.delay(object(), 0)


def test_a_broker_connection(shop: Shop, connection: Connection) -> None:
    """Celery's `connection=` and `producer=` are refused, with the option to use instead."""
    with Broker("memory://") as broker, shop.app.outbox.using(connection):
        options: list[dict[str, Any]] = [{"connection": broker}, {"producer": Producer(broker)}]
        for option in options:
            with pytest.raises(UnsupportedOption, match="outbox="):
                shop.add.apply_async((1, 0), **option)


@pytest.mark.parametrize("option", ["connection", "orderingkey", "body", "properties"])
def test_an_unknown_option_of_an_event(shop: Shop, connection: Connection, option: str) -> None:
    """A misspelt one would be left out on the wire, and the order it asked for with it."""
    options: dict[str, Any] = {option: "x"}
    with pytest.raises(UnsupportedOption, match=f"events was sent with {option}="):
        shop.app.outbox.publish(connection, {}, exchange="events", **options)


def test_no_transaction(shop: Shop) -> None:
    """Without a transaction and without a database URL the call says what can be done."""
    with pytest.raises(NoTransaction, match=r"shop\.add .* OUTBOX_DATABASE_URL"):
        shop.add.delay(1, 0)
    with pytest.raises(NoTransaction, match=r"order\.paid"):
        shop.app.outbox.publish(None, {}, routing_key="order.paid")
