"""What a worker cannot even begin goes into its queue's dead letters; Celery throws it away.

A task that is not registered here, a body that cannot be decoded, a message that is no task: each
is put into "<queue>.dead" with the reason, and acknowledged once the broker has it there. A worker
that is killed in between leaves two of it, never none. Where that fails the message goes back to
its queue after a pause. It does not count as failed, as it may still run: no result is stored.

A queue whose dead letters go elsewhere, by arguments of its own, has the broker send them there.
"""

from collections.abc import Callable
from typing import Any

from celery import signals
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError

from celery_inbox.dead_letters import DEAD, lasts, sent_elsewhere

#: The header that says why a message was put aside, from which queue, and by whom.
PUT_ASIDE = "x-put-aside"
#: How long a message that could not be put aside stays here before it goes back, in seconds.
BACK_AFTER = 10.0
#: The longest wait for the broker's confirm, in seconds.
CONFIRM_SECONDS = 10.0
#: Of a message's properties, those that stay with it. Not its expiry: it would end in the queue.
KEPT_PROPERTIES = ("correlation_id", "reply_to", "message_id", "timestamp", "type", "app_id")

logger = get_logger(__name__)


class KeepingConsumer(Consumer):
    """Celery's consumer, which loses nothing of what it cannot run."""

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """No task of that name is registered in this worker."""
        if not put_aside(self, message, "unregistered task"):
            super().on_unknown_task(body, message, exc)
            return
        headers = message.headers if "id" in message.headers else message.payload
        signals.task_unknown.send(
            sender=self, message=message, exc=exc, name=headers["task"], id=headers["id"]
        )

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """It is no task at all."""
        if not put_aside(self, message, "not a task"):
            super().on_unknown_message(body, message)
            return
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """It says too little, or its content type is not accepted."""
        if not put_aside(self, message, f"invalid task ({type(exc).__name__})"):
            super().on_invalid_task(body, message, exc)
            return
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Its body cannot be decoded."""
        if not put_aside(self, message, f"undecodable body ({type(exc).__name__})"):
            super().on_decode_error(message, exc)


def put_aside(consumer: Any, message: Any, reason: str) -> bool:
    """Deal with a message that cannot run; False where Celery may do as it does."""
    queue = _queue_of(consumer, message)
    if queue is None or not lasts(queue):
        return False
    name = message.headers.get("task", "?")
    known_as = f"{name}[{message.headers.get('id', '?')}]"
    if sent_elsewhere(queue):
        logger.error(
            "%s: %s, rejected to the dead letters of queue %s", known_as, reason, queue.name
        )
        message.reject_log_error(logger, consumer.connection_errors)
        return True
    mark = {"reason": reason, "queue": queue.name, "worker": consumer.hostname}
    try:
        _WAYS[consumer.connection.transport.driver_type](consumer, message, queue.name, mark)
    except Exception as error:
        logger.error(
            "%s: %s, and it cannot be put into %s%s (%s): it goes back to its queue",
            known_as, reason, queue.name, DEAD, type(error).__name__,
        )  # fmt: skip
        consumer.timer.call_after(
            BACK_AFTER, message.reject_log_error, (logger, consumer.connection_errors, True)
        )
    else:
        logger.error("%s: %s, put into %s%s", known_as, reason, queue.name, DEAD)
        message.ack_log_error(logger, consumer.connection_errors)
    return True


def _over_amqp(consumer: Any, message: Any, queue: str, mark: dict[str, str]) -> None:
    """On a connection of its own, confirmed, and an error where the queue is not there."""
    headers = {**message.headers, PUT_ASIDE: mark}
    if not message.errors:
        headers.pop("compression", None)  # kombu has unpacked it
    options = {"confirm_publish": True}
    with consumer.app.connection_for_read(transport_options=options) as connection:
        returned: list[Any] = []
        connection.Producer(on_return=lambda *_: returned.append(_)).publish(
            message.body if message.body is not None else b"",
            routing_key=queue + DEAD,
            headers=headers,
            content_type=message.content_type or "application/octet-stream",
            content_encoding=message.content_encoding or "binary",
            mandatory=True,
            confirm_timeout=CONFIRM_SECONDS,
            **{k: v for k, v in message.properties.items() if k in KEPT_PROPERTIES},
        )
        if returned:
            raise OperationalError(f"there is no queue {queue}{DEAD}")


def _in_redis(_: Any, message: Any, queue: str, mark: dict[str, str]) -> None:
    """The very text that was popped, with the mark, in one list whatever its priority was."""
    raw = message._raw
    message.channel._put(
        queue + DEAD,
        {
            **raw,
            "headers": {**(raw.get("headers") or {}), PUT_ASIDE: mark},
            "properties": {**raw["properties"], "priority": 0},
        },
    )


_WAYS: dict[str, Callable[[Any, Any, str, dict[str, str]], None]] = {
    "amqp": _over_amqp,
    "redis": _in_redis,
}


def _queue_of(consumer: Any, message: Any) -> Any:
    """The queue that it came from; None where that cannot be told."""
    consumed = {queue.name: queue for queue in consumer.task_consumer.queues}
    if len(consumed) == 1:
        return next(iter(consumed.values()))
    delivery = message.delivery_info
    for name, tag in consumer.task_consumer._active_tags.items():
        if tag == delivery.get("consumer_tag"):
            return consumed.get(name)
    if consumer.connection.transport.driver_type != "redis":
        return None
    names = message.channel._lookup(delivery.get("exchange"), delivery.get("routing_key"))
    return next((consumed[name] for name in names if name in consumed), None)
