"""Messages that no task call sends: `app.outbox.publish`, and what a kombu producer publishes.

kombu prepares them as it would for the broker.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import uuid4

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError

from celery_outbox import settings
from celery_outbox.capture import row, wire
from celery_outbox.capture.channel import PUBLISH, Captured, CapturingProducer
from celery_outbox.errors import UnsupportedOption
from celery_outbox.message import Message

#: What an event may be sent with. kombu lets anything else pass, and AMQP then leaves it out.
OPTIONS: Final = wire.PROPERTIES | ({*PUBLISH.parameters} - {"self", "body", "properties"})


def name_of(exchange: str | Exchange, routing_key: str, headers: Mapping[str, Any]) -> str:
    """Return what operators see of a message that was given no name."""
    if _is_task(headers):
        return str(headers["task"])
    return routing_key or (exchange.name if isinstance(exchange, Exchange) else exchange)


def event(
    app: Celery,
    capturing: CapturingProducer,
    name: str,
    payload: Any,
    *,
    exchange: str | Exchange,
    headers: Mapping[str, Any],
    mandatory: bool | None,
    declare: Iterable[Queue | Exchange],
    ordering_key: object,
    dedup_key: object,
    options: Mapping[str, Any],
) -> Message:
    """Return the row for a message, as kombu.Producer.publish would send it with `options`.

    One that is a task by its headers keeps the task's id and times. Raises UnpublishableMessage or
    UnsupportedOption.
    """
    declare = [*declare]
    if isinstance(exchange, Exchange):
        declare.append(exchange)
    is_task = _is_task(headers)
    given = {**options, "exchange": exchange, "declare": declare, "headers": dict(headers)}
    if not is_task:
        given.setdefault("message_id", str(uuid4()))
    captured = _captured(capturing, name, payload, given)
    keys = row.Keys(ordering_key, dedup_key)
    if is_task:
        return row.task_message(app, name, None, captured, {**given, "mandatory": mandatory}, keys)
    if mandatory is None:
        mandatory = not row.may_reach_nobody(app, captured.exchange, [exchange])
    return row.build(
        captured,
        message_id=captured.properties["message_id"],
        task=name,
        mandatory=mandatory,
        max_body=settings.max_body(app),
        keys=keys,
    )


def _is_task(headers: Mapping[str, Any]) -> bool:
    """Tell whether a worker would run this: Celery's protocol 2 keeps a task's facts in headers."""
    return {"task", "id", "eta", "expires"} <= headers.keys()


def _captured(
    capturing: CapturingProducer, name: str, payload: Any, options: Mapping[str, Any]
) -> Captured:
    if unknown := sorted(options.keys() - OPTIONS):
        raise UnsupportedOption.about(
            task=name,
            option=f"{unknown[0]}=",
            reason="this is neither an option of kombu.Producer.publish nor a property of AMQP",
        )
    try:
        captured: Captured = capturing.publish(payload, **options)
    except EncodeError as error:
        failure = row.unencodable(name, error)
    else:
        return captured
    raise failure  # outside the handler: the serialiser's error shows the payload
