"""What an outbox holds, as a test looks at it: rows, and the tasks and events that they are."""

import json
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, cast

from celery import Celery
from kombu.compression import decompress
from kombu.serialization import loads

from celery_outbox import settings
from celery_outbox.errors import InvalidSetting, NoTransaction
from celery_outbox.statements.commands import Rows
from celery_outbox.targets.target import Target, target_for

SELECT: Final = """
SELECT id, message_id, task, exchange, routing_key, headers::text, properties::text, body,
    content_type, content_encoding, available_at, expires_at
FROM {schema}.message
"""
# Rows a transaction can see although their own is in progress: its own, savepoints included.
IS_UNCOMMITTED: Final = "pg_xact_status(xmin::text::xid8) = 'in progress'"
IS_WAITING: Final = (
    "id IN (SELECT id FROM {schema}.pending UNION ALL SELECT id FROM {schema}.scheduled)"
)
UNCOMMITTED: Final = f"{SELECT} WHERE {IS_UNCOMMITTED} ORDER BY id"
WAITING: Final = f"{SELECT} WHERE {IS_WAITING} ORDER BY id"
# Of a test: what its transaction would send, and what it has committed before; where nothing was
# written in this transaction, which is then one for the look alone, all that waits. (A Session can
# say that it is in none while its connection is in one.)
OWN: Final = f"""
{SELECT} WHERE {IS_UNCOMMITTED} OR message_id = ANY (%s::text[]) AND {IS_WAITING} ORDER BY id
"""
OWN_OR_WAITING: Final = f"""
{SELECT} WHERE {IS_UNCOMMITTED} OR {IS_WAITING} AND
    (pg_current_xact_id_if_assigned() IS NULL OR message_id = ANY (%s::text[])) ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A task or an event as it would be sent; of an event, `kwargs` is empty, `args` its payload.

    `routing_key` is the name of the queue, unless tasks are routed through an exchange.
    """

    message_id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    exchange: str
    routing_key: str
    headers: dict[str, Any]
    eta: datetime | None
    expires: datetime | None


@dataclass(frozen=True)
class Row:
    """A message as the database returns it; the columns of SELECT, in their order."""

    id: int
    message_id: str
    task: str
    exchange: str
    routing_key: str
    headers: str
    properties: str
    body: bytes
    content_type: str
    content_encoding: str
    eta: datetime | None
    expires: datetime | None

    @cached_property
    def is_task(self) -> bool:
        """Whether a worker would run it."""
        return _is_task(json.loads(self.headers)) or _is_old_task(self._payload)

    @cached_property
    def message(self) -> OutboxMessage:
        """What it says, read as its worker would read it."""
        headers, payload = json.loads(self.headers), self._payload
        args, kwargs = payload, {}
        if _is_task(headers):
            args, kwargs = payload[0], payload[1]
        elif _is_old_task(payload):
            args, kwargs = payload["args"], payload["kwargs"]
        return OutboxMessage(
            self.message_id,
            self.task,
            args,
            kwargs,
            self.exchange,
            self.routing_key,
            headers,
            self.eta,
            self.expires,
        )

    @cached_property
    def _payload(self) -> Any:
        body = bytes(self.body)
        if compression := json.loads(self.headers).get("compression"):
            body = decompress(body, compression)
        return loads(body, self.content_type, self.content_encoding, accept={self.content_type})


def _is_task(headers: dict[str, Any]) -> bool:
    """Tell whether these are the headers of a task in Celery's protocol 2."""
    return {"task", "id"} <= headers.keys()


def _is_old_task(payload: Any) -> bool:
    """Tell whether this is the body of a task in Celery's protocol 1, which has no headers."""
    return isinstance(payload, dict) and {"task", "id", "args", "kwargs"} <= payload.keys()


def chosen_target(app: Celery, target: object | None, who: str) -> object:
    """Return the target that was given, or else Django's. Raises NoTransaction."""
    if app.conf.task_always_eager:
        raise InvalidSetting.about(
            setting="task_always_eager",
            problem="is on, so tasks run where they are sent and nothing is stored. Tests that look"
            " into the outbox, or run what is in it, need it off",
        )
    target = target if target is not None else settings.django_alias(app)
    if target is None:
        raise NoTransaction.about(task=f"{who}: what")
    return target


def messages_of(app: Celery, target: object | None) -> Any:
    """Return what a transaction would send; outside of one, what waits. See `outbox_messages`."""
    target = target if target is not None else settings.django_alias(app)
    if target is None:
        raise NoTransaction.about(task="outbox_messages(): what")
    joined = target_for(target, settings.schema(app))
    committing = not joined.in_transaction()
    rows = joined.fetch(UNCOMMITTED)
    if not isinstance(rows, list):
        return _awaited(joined, rows, committing)
    if committing and not rows:
        rows = cast(Rows, joined.fetch(WAITING))
    return [Row(*row).message for row in rows]


async def _awaited(joined: Target, found: Awaitable[Rows], committing: bool) -> list[OutboxMessage]:
    rows = await found
    if committing and not rows:
        rows = await cast(Awaitable[Rows], joined.fetch(WAITING))
    return [Row(*row).message for row in rows]
