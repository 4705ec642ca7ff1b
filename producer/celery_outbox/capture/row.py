"""The row for a captured message: checked, so that a relay can publish it, its tables as JSON."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from celery import Celery
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError

from celery_outbox import settings
from celery_outbox.capture import wire
from celery_outbox.capture.channel import Captured
from celery_outbox.capture.declare import concerning, describe
from celery_outbox.errors import UnpublishableMessage
from celery_outbox.message import Message

#: How the serialisers name the type that they cannot take.
TYPE_IN_ERROR: Final = re.compile(
    r"[Oo]bject of type '?([\w.]+)|(?:pickle|serialize) '([\w.]+)' object"
)

#: Exchanges that answer a mandatory message with a return although all is well: to a fanout nobody
#: need listen, and RabbitMQ's delayed messages reach a queue only when their time has come.
NOT_AT_ONCE: Final = ("fanout", "x-delayed-message")


class Keys(NamedTuple):
    """The `ordering_key` and `dedup_key` of a send, as they were given."""

    ordering_key: object = None
    dedup_key: object = None

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.ordering_key is not None or self.dedup_key is not None


def task_message(
    app: Celery,
    name: str,
    task: Any,
    captured: Captured,
    options: Mapping[str, Any],
    keys: Keys,
    replies: Iterable[Queue] = (),
) -> Message:
    """Return the row for a captured task: `task` as Celery made it, sent with `options`.

    `replies` are declared with what the task itself needs, for the worker to answer to. Raises
    UnpublishableMessage for what no relay could publish.
    """
    facts = captured.headers if "id" in captured.headers else task.body  # task protocol 1
    needed: Iterable[Any] = captured.declare
    if options.get("declare") is None:
        needed = concerning(needed, captured.exchange, captured.routing_key)
    headers = _with_printable_repr(captured.headers)
    captured = captured._replace(declare=(*needed, *replies), headers=headers)
    mandatory = options.get("mandatory")
    if mandatory is None:
        destinations = (options.get("queue"), options.get("exchange"))
        mandatory = not may_reach_nobody(app, captured.exchange, destinations)
    return build(
        captured,
        message_id=facts["id"],
        task=name,
        mandatory=mandatory,
        max_body=settings.max_body(app),
        available_at=_time(app, facts["eta"]),
        expires_at=_time(app, facts["expires"]),
        keys=keys,
    )


def build(
    captured: Captured,
    *,
    message_id: object,
    task: str,
    mandatory: bool,
    max_body: int,
    keys: Keys,
    available_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> Message:
    """Return the row for a captured message. Raises UnpublishableMessage."""

    def refuse(field: str, problem: str) -> Exception:
        return UnpublishableMessage.about(task=task, field=field, problem=problem)

    for field in ("exchange", "routing_key", "content_type", "content_encoding"):
        wire.short_string(field, getattr(captured, field), refuse)
    wire.short_string("the task id", message_id, refuse)
    body = captured.body
    if isinstance(body, str):
        body = body.encode(captured.content_encoding)
    wire.check_body(body, max_body, refuse)
    return Message(
        message_id=str(message_id),
        task=task,
        exchange=captured.exchange,
        routing_key=captured.routing_key,
        headers=wire.headers_json(captured.headers, refuse),
        properties=wire.properties_json(captured.properties, refuse),
        body=bytes(body),
        content_type=captured.content_type,
        content_encoding=captured.content_encoding,
        mandatory=mandatory,
        declare=describe(captured.declare, refuse),
        available_at=available_at,
        expires_at=expires_at,
        ordering_key=wire.key("ordering_key", keys.ordering_key, refuse),
        dedup_key=wire.key("dedup_key", keys.dedup_key, refuse),
    )


def unencodable(task: str, error: EncodeError) -> UnpublishableMessage:
    """Return the error for arguments the serialiser cannot take.

    Of its own words only a type is repeated: others show the argument itself.
    """
    named = TYPE_IN_ERROR.search(str(error))
    what = f": of type {next(filter(None, named.groups()))}" if named else ""
    problem = f"cannot be serialised{what}. Pass plain values, or choose another serializer"
    return UnpublishableMessage.about(task=task, field="an argument", problem=problem)


def _with_printable_repr(headers: dict[str, Any]) -> dict[str, Any]:
    """Escape in argsrepr and kwargsrepr what Postgres could not show.

    NUL and halves of a surrogate pair are legitimate in an argument, whose body is stored as bytes.
    These two headers are for people only; everywhere else such characters are refused.
    """
    escaped = {
        name: wire.escape(headers[name])
        for name in ("argsrepr", "kwargsrepr")
        if isinstance(headers.get(name), str) and not wire.is_storable(headers[name])
    }
    return headers | escaped if escaped else headers


def may_reach_nobody(app: Celery, exchange: str, destinations: Iterable[object]) -> bool:
    """Tell whether messages to `exchange` may rightly reach no queue, at all or at first.

    Its type is known from `destinations`, or from a queue the app was configured with.
    """
    if not exchange:
        return False
    known = [
        entity.exchange if isinstance(entity, Queue) else entity
        for entity in (*destinations, *app.amqp.queues.values())
    ]
    return any(
        isinstance(entity, Exchange) and entity.name == exchange and entity.type in NOT_AT_ONCE
        for entity in known
    )


def _time(app: Celery, text: str | None) -> datetime | None:
    """Return the time a worker of `app` would read from an eta or expires header."""
    time = maybe_iso8601(text) if text else None
    return time and maybe_make_aware(time, app.timezone)
