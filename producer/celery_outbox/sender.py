"""The last step of every task's send: decide where it goes, have Celery finish it, hand it over."""

from functools import cached_property
from typing import Any, Final

from celery import Celery
from kombu import Producer
from kombu.exceptions import EncodeError

from celery_outbox import capture
from celery_outbox import destination as routes
from celery_outbox.backend import reply_queues
from celery_outbox.capture import Keys, OutboxProducer
from celery_outbox.decision import ENDINGS, Destination
from celery_outbox.dedup import Dedup
from celery_outbox.errors import UnsupportedOption

#: By these a task is part of a larger whole, whose result another task cannot stand in for.
PARTS: Final = ("chain", "chord", "group_id", "parent_id")


class TaskSender:
    """Stands in for `app.amqp.send_task_message`."""

    def __init__(self, app: Any, amqp: Any) -> None:
        self._app = app
        self._amqp = amqp

    @cached_property
    def _publish(self) -> Any:
        """Celery's own function, made when first needed, once the app is configured."""
        return self._amqp._create_task_sender()

    def __call__(self, producer: Producer, name: str, message: Any, **options: Any) -> None:
        """Store the task, finished by Celery as for the broker."""
        _refuse_connection(name, producer)
        keys = Keys(options.pop("ordering_key", None), options.pop("dedup_key", None))
        if keys.dedup is not None and not isinstance(keys.dedup, Dedup):
            raise _unsupported(name, "dedup_key=", "give it where the task is sent, not in a route")
        outbox = self._app.outbox
        decision = outbox.decide(name, message, options.pop("outbox", None))
        if decision.origin in ENDINGS:
            keys = keys._replace(dedup=None)  # not sent, the running task would never end
        noted = routes.take_noted(options, self._amqp.queues)
        if decision.destination is Destination.BROKER:
            self._send_as_celery(name, message, options, keys, noted)
            return
        routes.replace(options, noted)
        # No event "task-sent", which is monitoring; no retry, as there is no broker to retry.
        options["retry"] = False
        try:
            captured = self._publish(
                outbox.capturing, name, message._replace(sent_event=None), **options
            )
        except EncodeError as error:
            raise capture.unencodable(name, error) from error
        replies = [] if message.headers.get("ignore_result") else reply_queues(self._app.backend)
        outbox.carry_out(
            decision,
            capture.task_message(self._app, name, message, captured, options, keys, replies),
        )

    def _send_as_celery(
        self, name: str, message: Any, options: dict[str, Any], keys: Keys, noted: dict[str, Any]
    ) -> None:
        if keys.any:
            reason = "this worker has no OUTBOX_DATABASE_URL and sends it directly"
            raise _unsupported(name, "ordering_key= or dedup_key=", reason)
        if not routes.is_native_delay(options.get("exchange")):
            routes.replace(options, noted)
        with Celery.producer_or_acquire(self._app) as connected:
            self._publish(connected, name, message, **options)


def take_dedup_key(name: str, options: dict[str, Any]) -> Dedup | None:
    """Replace the dedup_key among `options` by what will know the outcome, and return that."""
    if options.get("dedup_key") is None:
        return None
    if any(options.get(part) for part in PARTS):
        reason = "it is part of a chain, group or chord, which would wait for its own id for ever"
        raise _unsupported(name, "dedup_key=", reason)
    dedup = options["dedup_key"] = Dedup(options["dedup_key"])
    return dedup


def _refuse_connection(name: str, producer: Producer) -> None:
    if not isinstance(producer, OutboxProducer):
        reason = "these name a connection to the broker, which the relay has and this process"
        reason += " does not. For the transaction to join, use outbox="
        raise _unsupported(name, "connection= or producer=", reason)


def _unsupported(task: str, option: str, reason: str) -> UnsupportedOption:
    return UnsupportedOption.about(task=task, option=option, reason=reason)
