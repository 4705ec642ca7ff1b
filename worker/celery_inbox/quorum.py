"""Queues that survive a lost node and put aside a message that keeps killing its workers."""

from typing import Any

import celery
from celery import Celery, bootsteps
from celery.app.amqp import Queues
from kombu import Queue

DEAD = ".dead"


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
        if plain and "x-queue-type" not in arguments and "x-max-priority" not in arguments:
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
        super().__setitem__(name, queue)


class DeclareDeadLetters(bootsteps.StartStopStep):
    """Declares the queues of dead letters whenever a worker connects; nobody consumes them."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Any) -> None:
        """Declare them beside the queues this worker consumes."""
        with parent.connection.channel() as channel:
            for queue in parent.app.amqp.queues.consume_from.values():
                target = (queue.queue_arguments or {}).get("x-dead-letter-routing-key")
                if target == queue.name + DEAD:
                    dead = Queue(target, queue_arguments={"x-queue-type": "quorum"})
                    dead(channel).queue_declare()
