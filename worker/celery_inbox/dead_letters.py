"""The queues of dead letters, "<queue>.dead": who declares them, and for which queues.

The broker puts there what a quorum queue gives up, `KeepingConsumer` what a worker cannot begin.
No worker consumes them: a relay brings what lies there home to the outbox.
"""

from typing import Any

from celery import Celery, bootsteps
from celery.utils.log import get_logger
from kombu import Queue

DEAD = ".dead"

#: Celery's own consumer, and the one that is put in its place, imported by workers alone.
PLAIN = "celery.worker.consumer:Consumer"
KEEPING = "celery_inbox.keeping:KeepingConsumer"
#: Brokers on which a message can be put aside.
TRANSPORTS = ("amqp", "redis")

logger = get_logger(__name__)


class DeclareDeadLetters(bootsteps.StartStopStep):
    """Declares the queues of dead letters whenever a worker connects; no worker consumes them."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def start(self, parent: Any) -> None:
        """Declare them beside the queues this worker consumes. One that exists stays as it is."""
        arguments: dict[str, str | int] = {"x-queue-type": "quorum"}
        if _major_version(parent.connection) >= 4:
            # Else what is looked at too often, and left there, is dropped.
            arguments["x-delivery-limit"] = -1
        for queue in parent.app.amqp.queues.consume_from.values():
            if not lasts(queue) or sent_elsewhere(queue):
                continue
            try:
                with parent.connection.channel() as channel:
                    dead = Queue(queue.name + DEAD, queue_arguments=arguments)
                    dead(channel).queue_declare()
            except parent.connection.channel_errors as error:
                logger.warning("reliable: %s%s was not declared: %s", queue.name, DEAD, error)


def keep_what_cannot_run(app: Celery, transport: str) -> tuple[str, ...]:
    """Have the app's workers keep such messages; return what was changed."""
    if transport == "amqp":
        app.steps["consumer"].add(DeclareDeadLetters)
    if transport not in TRANSPORTS or app.conf.worker_consumer != PLAIN:
        return ()
    app.conf.worker_consumer = KEEPING
    return ("messages of unregistered tasks, and undecodable ones: thrown away -> <queue>.dead",)


def lasts(queue: Any) -> bool:
    """Whether a queue outlives its consumers, so that its messages are to be kept."""
    return bool(queue.durable and not queue.auto_delete and not queue.exclusive)


def sent_elsewhere(queue: Any) -> bool:
    """Whether the application has said itself where dead letters of the queue go."""
    arguments = queue.queue_arguments or {}
    exchange = arguments.get("x-dead-letter-exchange")
    if exchange is None:
        return False
    return (exchange, arguments.get("x-dead-letter-routing-key")) != ("", queue.name + DEAD)


def _major_version(connection: Any) -> int:
    """Of RabbitMQ, as it greets; 0 where it does not say."""
    greeting = getattr(connection.connection, "server_properties", {})
    major = str(greeting.get("version", "0")).partition(".")[0]
    return int(major) if major.isdigit() else 0
