"""What a row would have declared: the entities in its `declare`, as plain JSON of the right types.

Read without a broker's library, because what a row may name is decided before any broker is asked.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

#: What has to be of a type, if it is given; a broker's library would take anything, and fail later.
TYPES: Final[dict[str, type]] = {
    **dict.fromkeys(("name", "type", "routing_key"), str),
    **dict.fromkeys(("arguments", "queue_arguments", "binding_arguments"), dict),
}
#: Arguments of a queue or an exchange that name another exchange messages may go to.
FORWARDING: Final = ("x-dead-letter-exchange", "alternate-exchange")

#: A queue or an exchange: `kind`, and the attributes by which kombu makes it.
Entity = dict[str, Any]


def entities(declare: str) -> list[Entity]:
    """The entities a row's JSON text describes. Raises ValueError where it describes none."""
    try:
        return [_entity(each) for each in json.loads(declare)]
    except Exception as error:  # whatever a row's text provokes is that row's fault, not ours
        # Not in its own words, which may repeat the text.
        raise ValueError(f"declare cannot be read: {type(error).__name__}") from error


def exchanges(entity: Entity) -> Iterator[str]:
    """Every exchange that a declaration creates, binds to, or forwards to."""
    if entity["kind"] == "exchange":
        yield entity.get("name") or ""
        yield from _forwarding(entity.get("arguments"))
        return
    # Every queue is on the default exchange anyway: that grants nothing.
    for exchange in (entity["exchange"], *(each["exchange"] for each in entity["bindings"])):
        yield from filter(None, [exchange.get("name")])
        yield from _forwarding(exchange.get("arguments"))
    yield from _forwarding(entity.get("queue_arguments"))


def _forwarding(arguments: dict[str, Any] | None) -> Iterator[str]:
    yield from (str(arguments[key]) for key in FORWARDING if arguments and key in arguments)


def _entity(given: dict[str, Any]) -> Entity:
    entity = _checked(given)
    if entity["kind"] == "exchange":
        return entity
    if entity["kind"] != "queue":
        raise ValueError("a kind is neither queue nor exchange")
    entity["exchange"] = _checked(entity.get("exchange", {}))
    entity["bindings"] = [_binding(each) for each in entity.get("bindings", ())]
    return entity


def _binding(given: dict[str, Any]) -> dict[str, Any]:
    binding = _checked(given)
    binding["exchange"] = _checked(binding["exchange"])
    return binding


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """A copy, in which everything is of its type."""
    for name, type_ in TYPES.items():
        if not isinstance(given.get(name), type_ | None):
            raise TypeError(name)
    return dict(given)
