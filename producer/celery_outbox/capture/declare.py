"""Describes, as JSON, the queues and exchanges Celery would have declared before publishing.

Only what differs from kombu's defaults is kept, so that a relay can make the same entity again
with `kombu.Queue(**description)` and a row stays short.
"""

from collections.abc import Iterable
from typing import Any, Final

from kombu import Exchange, Queue
from kombu.entity import binding

from celery_outbox.capture.wire import Refuse, encode

EXCHANGE_DEFAULTS: Final = Exchange().as_dict()
QUEUE_DEFAULTS: Final = {
    name: value for name, value in Queue().as_dict().items() if name not in ("exchange", "bindings")
}
BINDING_DEFAULTS: Final = {
    name: value for name, value in binding().as_dict().items() if name != "exchange"
}


def describe(entities: Iterable[Queue | Exchange], refuse: Refuse) -> str:
    """Return the JSON text for the column `declare`."""
    described = [_entity(entity) for entity in entities if not getattr(entity, "no_declare", False)]
    try:
        return encode(described) if described else "[]"
    except TypeError as error:
        raise refuse("its queue or exchange", f"cannot be described: {error}") from error


def concerning(
    entities: Iterable[Queue | Exchange], exchange: str, routing_key: str
) -> list[Queue | Exchange]:
    """Return those of `entities` that a message to `exchange` depends on.

    With an explicit exchange Celery still names the queue of the route it did not take.
    """
    return [
        entity
        for entity in entities
        if not isinstance(entity, Queue)
        or (entity.name == routing_key if not exchange else exchange in _bound_to(entity))
    ]


def _bound_to(queue: Queue) -> set[str]:
    exchanges = [queue.exchange, *(bound.exchange for bound in queue.bindings)]
    return {exchange.name for exchange in exchanges if exchange is not None}


def _entity(entity: Queue | Exchange) -> dict[str, Any]:
    if isinstance(entity, Queue):
        return {"kind": "queue"} | _queue(entity)
    return {"kind": "exchange"} | _unusual(entity, EXCHANGE_DEFAULTS)


def _queue(queue: Queue) -> dict[str, Any]:
    description = _unusual(queue, QUEUE_DEFAULTS)
    if queue.exchange is not None and queue.exchange.name:
        description["exchange"] = _unusual(queue.exchange, EXCHANGE_DEFAULTS)
    if queue.bindings:
        description["bindings"] = [
            _unusual(bound, BINDING_DEFAULTS)
            | {"exchange": _unusual(bound.exchange, EXCHANGE_DEFAULTS)}
            for bound in queue.bindings
        ]
    return description


def _unusual(entity: Any, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of `entity` that differ from kombu's defaults."""
    return {
        name: value
        for name, default in defaults.items()
        if (value := getattr(entity, name)) is not None and value != default
    }
