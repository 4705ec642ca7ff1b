"""Whether one queue that refuses makes duplicates in others of the same exchange. Pure."""

from collections.abc import Sequence

from outbox_relay.broker.amqp.check.queues import REFUSING, Queue
from outbox_relay.core.finding import Finding, warn

NAME = "fan-out"
LIMITS = ("max-length", "max-length-bytes")


def judge(exchange: str, routing_key: str, queues: Sequence[Queue]) -> list[Finding]:
    """What to know of a message that goes to all of these queues at once."""
    refusing = [queue.name for queue in queues if _refuses(queue)]
    if not refusing or len(queues) < 2:
        return []
    others = [queue.name for queue in queues if queue.name != refusing[0]]
    return [
        warn(
            NAME,
            f"exchange {exchange!r} with routing key {routing_key!r} feeds queue {refusing[0]!r}, "
            f"which refuses when it is full, beside {', '.join(map(repr, others))}: while it does, "
            "RabbitMQ nacks what the others have taken, and each further attempt is a duplicate",
            f"give {refusing[0]!r} an exchange and a message of its own, or room; workers with an "
            "inbox run a duplicate once",
        )
    ]


def _refuses(queue: Queue) -> bool:
    overflow = queue.setting("overflow")
    return bool(overflow and overflow[0] in REFUSING and any(map(queue.setting, LIMITS)))
