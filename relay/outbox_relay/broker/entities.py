"""Queues and exchanges as kombu's, from the description a row carries in `declare`."""

from typing import Any

from kombu import Exchange, Queue
from kombu.entity import binding

from outbox_relay.core import declaration


def described(declare: str) -> list[Queue | Exchange]:
    """The entities a row's JSON text describes. Raises ValueError where it describes none."""
    entities = declaration.entities(declare)
    try:
        return [_entity(each) for each in entities]
    except Exception as error:  # kombu's, over a value it cannot use: that row's fault, not ours
        # Not in its own words, which may repeat the value.
        raise ValueError(f"declare cannot be read: {type(error).__name__}") from error


def _entity(entity: declaration.Entity) -> Queue | Exchange:
    attributes = dict(entity)
    if attributes.pop("kind") == "exchange":
        return Exchange(**attributes)
    exchange = Exchange(**attributes.pop("exchange"))
    bindings = [_binding(each) for each in attributes.pop("bindings")]
    return Queue(exchange=exchange, bindings=bindings, **attributes)


def _binding(given: dict[str, Any]) -> binding:
    attributes = dict(given)
    return binding(exchange=Exchange(**attributes.pop("exchange")), **attributes)
