"""Queues of each kind, fresh for every measurement: what lies in a queue slows some kinds down."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

from kombu import Connection, Exchange, Queue

from bench.lab import Unbelievable

PATIENCE_SECONDS: Final = 30
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of queue, by the arguments that make it so."""

    name: str
    arguments: tuple[tuple[str, str | int], ...] = ()


CLASSIC: Final = Kind("classic")
CLASSIC_V2: Final = Kind("classic v2", (("x-queue-version", 2),))
LAZY: Final = Kind("lazy", (("x-queue-mode", "lazy"),))
QUORUM: Final = Kind("quorum", (("x-queue-type", "quorum"),))


@dataclass(frozen=True, slots=True)
class Route:
    """A queue, and how a row asks for its declaration."""

    queue: str
    kind: Kind = CLASSIC

    @property
    def declare(self) -> str:
        """The JSON of `outbox.message.declare`, as the producer writes it."""
        name = self.queue
        described: dict[str, Any] = {"kind": "queue", "name": name, "routing_key": name}
        described["exchange"] = {"name": name}
        if self.kind.arguments:
            described["queue_arguments"] = dict(self.kind.arguments)
        return json.dumps([described])

    def entity(self) -> Queue:
        """The same queue for kombu."""
        exchange = Exchange(self.queue)
        arguments = dict(self.kind.arguments)
        return Queue(self.queue, exchange, self.queue, queue_arguments=arguments or None)


#: Of a broker that costs nothing.
STUB: Final = (Route("stub-0"),)


def fresh(url: str, kind: Kind = CLASSIC, count: int = 1) -> list[Route]:
    """Make empty queues, so that the relay finds what it would otherwise declare."""
    routes = [Route(f"{kind.name.replace(' ', '-')}-{n}", kind) for n in range(count)]
    delete(url, routes)
    declare(url, routes)
    return routes


def declare(url: str, routes: Sequence[Route]) -> None:
    """Make queues."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        for route in routes:
            route.entity()(channel).declare()


def depth(url: str, routes: Sequence[Route]) -> int:
    """Return how many messages lie in these queues."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        return sum(
            channel.queue_declare(route.queue, passive=True).message_count for route in routes
        )


def delete(url: str, routes: Sequence[Route]) -> None:
    """Delete queues with what is in them."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        for route in routes:
            channel.queue_delete(route.queue)


def await_depth(url: str, routes: Sequence[Route], expected: int) -> None:
    """Return once so many messages lie there, as those of a publisher without confirms will."""
    deadline = monotonic() + PATIENCE_SECONDS
    while (found := depth(url, routes)) != expected:
        if monotonic() > deadline:
            raise Unbelievable(f"{expected} messages sent, {found} in the queues")
        sleep(POLL_SECONDS)
