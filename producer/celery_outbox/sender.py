"""The last step of every task's send: decide where it goes, have Celery finish it, hand it over."""

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from celery import Celery
from kombu import Producer
from kombu.exceptions import EncodeError

from celery_outbox import routing
from celery_outbox.backend import reply_queues
from celery_outbox.capture import row
from celery_outbox.capture.channel import Captured, OutboxProducer
from celery_outbox.capture.row import Keys
from celery_outbox.decision import ENDINGS, Destination, Origin
from celery_outbox.dispatch import dispatch_of
from celery_outbox.errors import UnsupportedOption
from celery_outbox.locks import LockWarnings
from celery_outbox.many.noting import Sent, note

logger = logging.getLogger(__name__)

#: By these a task is part of a canvas, for which another task's result cannot stand in.
CANVAS_OPTIONS: Final = ("chain", "chord", "group_id")
#: Where a task's message has what follows it.
FOLLOWERS: Final = ("callbacks", "errbacks", "chain", "chord")
#: Signatures that are made of others.
CANVASES: Final = frozenset({"chain", "group", "chord"})


class TaskSender:
    """Stands in for `app.amqp.send_task_message`."""

    def __init__(self, app: Any, amqp: Any) -> None:
        self._app = app
        self._amqp = amqp
        self._locks = LockWarnings(app)

    @cached_property
    def _publish(self) -> Any:
        """Celery's own function, made when first needed, once the app is configured."""
        return self._amqp._create_task_sender()

    def __call__(self, producer: Producer, name: str, message: Any, **options: Any) -> None:
        """Store the task, finished by Celery as for the broker."""
        _refuse_connection(name, producer)
        keys = Keys(options.pop("ordering_key", None), options.pop("dedup_key", None))
        passage: routing.Passage | None = options.pop(routing.PASSAGE, None)
        dispatch = dispatch_of(self._app)
        decision = dispatch.decide(name, message, options.pop("outbox", None))
        if decision.origin in ENDINGS:
            keys = keys._replace(dedup_key=None)  # not sent, the running task would never end
        route = routing.undelayed(passage.noted if passage else {}, options, self._amqp.queues)
        if decision.destination is Destination.BROKER:
            self._send_as_celery(name, message, options, keys, route)
            return
        routing.replace(options, route)
        if decision.origin is Origin.USER:
            refuse_options_of_followers(name, message)
            self._locks.warn(name)
        captured = self._captured(name, message, options)
        replies = [] if message.headers.get("ignore_result") else reply_queues(self._app.backend)
        stored = row.task_message(self._app, name, message, captured, options, keys, replies)
        outcome = dispatch.carry_out(decision, stored)
        if decision.destination is not Destination.STORE_APART:
            note(Sent(message.body, stored, decision))
        if passage is not None:
            passage.outcome = outcome

    def _captured(self, name: str, message: Any, options: dict[str, Any]) -> Captured:
        """Have Celery finish the message, all but sending it."""
        # No event "task-sent", which is monitoring; no retry, as there is no broker to retry.
        message = message._replace(sent_event=None)
        options = {**options, "retry": False}
        try:
            capturing = dispatch_of(self._app).capturing
            captured: Captured = self._publish(capturing, name, message, **options)
        except EncodeError as error:
            failure = row.unencodable(name, error)
        else:
            return captured
        raise failure  # outside the handler: the serialiser's error shows the arguments

    def _send_as_celery(
        self, name: str, message: Any, options: dict[str, Any], keys: Keys, route: dict[str, Any]
    ) -> None:
        if keys.any:
            reason = "this worker has no OUTBOX_DATABASE_URL and sends it directly"
            raise _unsupported(name, "ordering_key= or dedup_key=", reason)
        if not routing.is_native_delay(options.get("exchange")):
            routing.replace(options, route)
        with Celery.producer_or_acquire(self._app) as connected:
            self._publish(connected, name, message, **options)


def check_dedup_key(name: str, options: dict[str, Any], *, follows: bool) -> bool:
    """Tell whether a send has a dedup_key. Raises UnsupportedOption where it cannot have one.

    What follows a task is not deduplicated, and not refused either: the task has succeeded. It can
    only be from a sender that has not refused it. So its key is taken out of `options`.
    """
    if options.get("dedup_key") is None:
        return False
    if follows:
        del options["dedup_key"]
        logger.warning("%s follows a task: it is sent, whatever its dedup_key", name)
        return False
    if any(options.get(part) for part in CANVAS_OPTIONS):
        reason = "it is part of a chain, group or chord, which would wait for its own id for ever"
        raise _unsupported(name, "dedup_key=", reason)
    return True


def refuse_options_of_followers(name: str, message: Any) -> None:
    """Refuse what a link, a step of a chain or the body of a chord cannot have."""
    followers: list[Any] = []
    if "id" in message.headers:
        *_, embedded = message.body
        followers += [embedded[part] for part in FOLLOWERS if embedded.get(part)]
    else:  # task protocol 1
        followers += [message.body[part] for part in FOLLOWERS if message.body.get(part)]
    if followers and _have(followers, "dedup_key"):
        reason = "what follows a task cannot be dropped, somebody waits for it. A task that is sent"
        reason += " by itself can have one"
        raise _unsupported(name, "the dedup_key of a link, a step or a body", reason)
    if followers and _have(followers, "outbox"):
        reason = "a worker sends what follows a task, and has no transaction of yours. Name it for"
        reason += " the whole: .set(outbox=...), apply_async(outbox=...) or app.outbox.using(...)"
        raise _unsupported(name, "the outbox= of a link, a step or a body", reason)


def _have(signatures: Any, option: str) -> bool:
    if isinstance(signatures, list | tuple):
        return any(_have(each, option) for each in signatures)
    if not isinstance(signatures, Mapping):
        return False
    options = signatures.get("options") or {}
    within = signatures.get("kwargs") if signatures.get("subtask_type") in CANVASES else None
    return options.get(option) is not None or any(
        _have(part, option)
        for part in (
            *(options.get(each) for each in ("link", "link_error", "chord")),
            *((within or {}).get(each) for each in ("tasks", "header", "body")),
        )
    )


def _refuse_connection(name: str, producer: Producer) -> None:
    if not isinstance(producer, OutboxProducer):
        reason = "these name a connection to the broker, which the relay has and this process"
        reason += " does not. For the transaction to join, use outbox="
        raise _unsupported(name, "connection= or producer=", reason)


def _unsupported(task: str, option: str, reason: str) -> UnsupportedOption:
    return UnsupportedOption.about(task=task, option=option, reason=reason)
