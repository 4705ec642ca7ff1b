"""How many messages are ready in queues of a RabbitMQ: passive declarations."""

from collections.abc import Iterable

from outbox_relay.broker.amqp.check.probe import Probe


class AmqpSounder:
    """A connection to ask on. Raises BrokerLost where it cannot be opened, or breaks."""

    def __init__(self, url: str) -> None:
        self._probe = Probe(url)

    def read(self, queues: Iterable[str]) -> dict[str, int]:
        """Of those that exist and may be asked for; one that does not exist yet is empty."""
        found = (self._probe.depth(queue) for queue in queues)
        return {depth.queue: depth.messages for depth in found if depth}

    def close(self) -> None:
        """Drop the connection."""
        self._probe.close()
