"""Queues and exchanges as kombu's, from the description a row carries in `declare`."""

import json
from typing import Any, Final

from kombu import Exchange, Queue
from kombu.entity import binding

#: What has to be of a type, if it is given: kombu takes anything, and is no more once it uses it.
TYPES: Final[dict[str, type]] = {
    **dict.fromkeys(("name", "type", "routing_key"), str),
    **dict.fromkeys(("arguments", "queue_arguments", "binding_arguments"), dict),
}


def described(declare: str) -> list[Queue | Exchange]:
    """The entities a row's JSON text describes. Raises ValueError where it describes none."""
    try:
        return [_entity(each) for each in json.loads(declare)]
    except Exception as error:  # whatever a row's text provokes is that row's fault, not ours
        # Not in its own words, which may repeat the text.
        raise ValueError(f"declare cannot be read: {type(error).__name__}") from error


def _entity(given: dict[str, Any]) -> Queue | Exchange:
    attributes = _checked(given)
    kind = attributes.pop("kind")
    if kind == "exchange":
        return Exchange(**attributes)
    if kind != "queue":
        raise ValueError("a kind is neither queue nor exchange")
    exchange = Exchange(**_checked(attributes.pop("exchange", {})))
    bindings = [_binding(each) for each in attributes.pop("bindings", ())]
    return Queue(exchange=exchange, bindings=bindings, **attributes)


def _binding(given: dict[str, Any]) -> binding:
    attributes = _checked(given)
    return binding(exchange=Exchange(**_checked(attributes.pop("exchange"))), **attributes)


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """A copy, in which everything is of its type."""
    for name, type_ in TYPES.items():
        if not isinstance(given.get(name), type_ | None):
            raise TypeError(name)
    return dict(given)
