"""Which spans follow from how the messages of a batch ended. Pure.

Of each message, two children of the span that sent it: its wait in the outbox, and the attempt to
publish it. Of a batch of several, a span in a trace of its own, which links to the spans that sent
its messages; each attempt links back to it. Names and attributes are those of OpenTelemetry's
conventions for messaging; there is neither an argument nor a payload among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from outbox_relay.observe.tracing.parent import Parent
from outbox_relay.observe.tracing.trail import Batch, Ending, Traced

OPERATION: Final = "publish"
WAIT: Final = "wait in outbox"
#: What RabbitMQ calls the default exchange, where neither exchange nor key has a name.
DEFAULT_EXCHANGE: Final = "amq.default"

Value = str | int | bool


class Event(NamedTuple):
    """Something that happened within a span."""

    name: str
    at: float
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it will be exported. Times are of the process's monotonic clock."""

    name: str
    parent: Parent | None  # None: it begins a trace
    begin: float
    end: float
    attributes: Mapping[str, Value]
    calling: bool = False  # of the broker
    events: tuple[Event, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The spans of a batch: one of all of it, if it had several messages, and those of each.

    `whole` is linked to `senders`, and each of `attempts` to `whole`.
    """

    whole: Span | None
    senders: tuple[Parent, ...]
    attempts: tuple[Span, ...]
    waits: tuple[Span, ...]


def plan(endings: Sequence[Ending], sent_before: Mapping[int, float], system: str) -> Plan:
    """The spans of messages that were published together.

    `sent_before` has those that were confirmed before, by id, and when: they are replayed.
    """
    batch = endings[0].traced.batch
    return Plan(
        whole=_whole(batch, endings, system) if batch and batch.messages > 1 else None,
        senders=tuple(ending.traced.parent for ending in endings),
        attempts=tuple(
            _attempt(ending, sent_before.get(ending.traced.id), system) for ending in endings
        ),
        waits=tuple(
            _wait(ending.traced)
            for ending in endings
            if ending.traced.id not in sent_before and not _unknown_wait(ending.traced)
        ),
    )


def _whole(batch: Batch, endings: Sequence[Ending], system: str) -> Span:
    attributes: dict[str, Value] = {
        "messaging.system": system,
        "messaging.operation.name": OPERATION,
        "messaging.operation.type": "send",
        "messaging.batch.message_count": batch.messages,
    }
    routes = {(e.traced.exchange, e.traced.routing_key) for e in endings}
    if len(routes) == 1 and len(endings) == batch.messages:  # else others go elsewhere
        attributes |= _destination(endings[0].traced, system)
    end = max(ending.at for ending in endings)
    return Span(f"{OPERATION} batch", None, batch.published, end, attributes, calling=True)


def _attempt(ending: Ending, sent_before: float | None, system: str) -> Span:
    traced = ending.traced
    begin = traced.batch.published if traced.batch else traced.claimed
    attributes = {
        **_message(traced, system),
        "messaging.operation.name": OPERATION,
        "messaging.operation.type": "send",
        "outbox.attempt": traced.attempts + 1,
    }
    if traced.suspect:
        attributes["outbox.quarantine"] = True
    events = []
    if sent_before is not None:
        ago = max(0, round(traced.claimed - sent_before))
        events.append(Event("outbox.replayed", begin, {"outbox.sent_seconds_ago": ago}))
    if not ending.confirmed:
        attributes["error.type"] = ending.reason
        about: dict[str, Value] = {"outbox.reason": ending.reason}
        if ending.state:
            about["outbox.state"] = ending.state
        events.append(
            Event("outbox.refused" if ending.state else "outbox.unknown", ending.at, about)
        )
    return Span(
        f"{OPERATION} {_name(traced)}",
        traced.parent,
        begin,
        ending.at,
        attributes,
        calling=True,
        events=tuple(events),
        error=ending.reason,
    )


def _unknown_wait(traced: Traced) -> bool:
    """Whether it is not known since when it waits: another relay's attempt was refused."""
    return traced.attempts > 0 and traced.waiting == traced.born


def _wait(traced: Traced) -> Span:
    """The wait may seem to end before it began where clocks were set: it is none then."""
    return Span(
        WAIT,
        traced.parent,
        min(traced.waiting, traced.claimed),
        traced.claimed,
        {"messaging.message.id": traced.message_id, "outbox.task": traced.task},
        events=tuple(
            Event("outbox.held", held.at, {"outbox.reason": held.reason}) for held in traced.held
        ),
    )


def _message(traced: Traced, system: str) -> dict[str, Value]:
    return {
        "messaging.system": system,
        **_destination(traced, system),
        "messaging.message.id": traced.message_id,
        "messaging.message.body.size": traced.size,
        "outbox.task": traced.task,
    }


def _destination(traced: Traced, system: str) -> dict[str, Value]:
    exchange, key = traced.exchange, traced.routing_key
    found: dict[str, Value] = {
        "messaging.destination.name": ":".join(filter(None, (exchange, key))) or DEFAULT_EXCHANGE
    }
    if key and system == "rabbitmq":
        found["messaging.rabbitmq.destination.routing_key"] = key
    return found


def _name(traced: Traced) -> str:
    """Of few values: keys on an exchange of somebody's own may be made of anything."""
    return traced.exchange or traced.routing_key or DEFAULT_EXCHANGE
