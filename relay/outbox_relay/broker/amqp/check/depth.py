"""How deep queues of a RabbitMQ are, and how many consumers each has: over AMQP alone."""

from collections.abc import Sequence
from contextlib import closing

from outbox_relay.broker.amqp.check.probe import Probe
from outbox_relay.broker.amqp.passive import Unanswered
from outbox_relay.core.depth import Depth


def depths(url: str, queues: Sequence[str]) -> list[Depth]:
    """Those of the queues that exist and may be asked for. Raises BrokerLost."""
    with closing(Probe(url)) as probe:
        found = [_depth(probe, queue) for queue in queues]
    return [depth for depth in found if depth]


def _depth(probe: Probe, queue: str) -> Depth | None:
    try:
        return probe.depth(queue)
    except Unanswered:
        return Depth(queue, 0, None, silent=True)
