"""How deep queues of a RabbitMQ are, and how many consumers each has: over AMQP alone."""

from collections.abc import Sequence
from contextlib import closing, suppress

from outbox_relay.broker.amqp.check.probe import Probe, Unanswered
from outbox_relay.core.depth import Depth


def depths(url: str, queues: Sequence[str]) -> list[Depth]:
    """Those of the queues that exist, may be asked for, and answer. Raises BrokerLost."""
    found = []
    with closing(Probe(url)) as probe:
        for queue in queues:
            with suppress(Unanswered):
                found.append(probe.depth(queue))
    return [depth for depth in found if depth]
