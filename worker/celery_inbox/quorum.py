"""Queues that survive a lost node and put aside a message that keeps killing its workers."""

from typing import Any

import celery
from amqp.exceptions import PreconditionFailed
from celery import Celery
from celery.app.amqp import Queues
from celery.utils.log import get_logger
from kombu import Queue

from celery_inbox.dead_letters import DEAD

logger = get_logger(__name__)

#: What RabbitMQ has for classic queues alone, and refuses to declare a quorum queue with.
CLASSIC_ONLY = ("x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator")


def supports_quorum() -> bool:
    """Celery consumes quorum queues since 5.5; before, it asks them for a global prefetch."""
    return celery.VERSION[:2] >= (5, 5)


class ReliableQueues(Queues):
    """The app's queues; durable ones of no stated type become quorum queues with a limit."""

    delivery_limit: int

    @classmethod
    def install(cls, app: Celery, delivery_limit: int) -> None:
        """Have the app build its queues with this class."""
        app.amqp.queues_cls = type(cls.__name__, (cls,), {"delivery_limit": delivery_limit})
        vars(app.amqp).pop("queues", None)  # built before: build again

    def __setitem__(self, name: str, queue: Queue) -> None:
        arguments = queue.queue_arguments or {}
        plain = queue.durable and not queue.auto_delete and not queue.exclusive
        if plain and "x-queue-type" not in arguments and not only_classic(queue):
            queue.queue_arguments = {
                "x-queue-type": "quorum",
                "x-delivery-limit": self.delivery_limit,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": queue.name + DEAD,
                # Dead letters are confirmed too; this strategy asks for that overflow.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                **arguments,
            }
            vars(queue)["before_reliable"] = arguments
            if type(queue) is Queue:  # Celery keeps the very object that it gives us
                queue.__class__ = ReliableQueue
        super().__setitem__(name, queue)


class ReliableQueue(Queue):
    """A queue that is taken as it is where the broker has it already, and not as we want it.

    As when SQL or a relay declared it before the first worker: a queue cannot change its type, and
    a refused declaration ends its channel. So it is asked for on a channel of its own.
    """

    before_reliable: dict[str, Any]
    attrs = (*Queue.attrs, ("before_reliable", None))  # what kombu copies as it binds a queue

    def queue_declare(
        self, nowait: bool = False, passive: bool = False, channel: Any = None
    ) -> Any:
        """Declare it; with what the application asked for, where the broker refuses the rest."""
        channel = channel or self.channel
        if not passive:
            try:
                with channel.connection.channel() as asked:
                    return super().queue_declare(nowait=False, channel=asked)
            except PreconditionFailed:
                self.queue_arguments = self.before_reliable
                logger.warning("reliable: %s", exists_otherwise(self.name))
        return super().queue_declare(nowait=nowait, passive=passive, channel=channel)


def only_classic(queue: Any) -> str:
    """What of a queue no quorum queue can have; "" where there is nothing."""
    if queue.max_priority is not None:
        return "max_priority"
    return next((name for name in CLASSIC_ONLY if name in (queue.queue_arguments or {})), "")


def exists_otherwise(name: str) -> str:
    """What to say of a queue that the broker has already, with other arguments."""
    return (
        f"queue {name} exists already and is no quorum queue with this delivery limit: it is "
        "consumed as it is, so a message that keeps killing its workers comes back without end. "
        "Either move to a quorum queue of another name, as the page on effects exactly once says, "
        "or keep it with reliable(app, quorum=False)"
    )
