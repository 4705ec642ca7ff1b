"""For your tests, a pytest plugin: `pytest_plugins = ["celery_outbox.testing"]` in conftest.py.

The fixture `outbox_messages` lists what a transaction would send if it committed now. It asks the
database, in that transaction, so what was rolled back to a savepoint is not listed. Where no
transaction is in progress, because the test commits, it lists what waits to be sent.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import pytest
from celery import current_app
from kombu.compression import decompress
from kombu.serialization import loads

from celery_outbox import settings
from celery_outbox.errors import NoTransaction
from celery_outbox.statements.commands import Rows
from celery_outbox.targets.target import Target, target_for

SELECT: Final = """
SELECT message_id, task, exchange, routing_key, headers::text, body, content_type,
    content_encoding, available_at, expires_at
FROM {schema}.message
"""
# Rows a transaction can see although their own is in progress: its own, savepoints included.
UNCOMMITTED: Final = SELECT + "WHERE pg_xact_status(xmin::text::xid8) = 'in progress' ORDER BY id"
WAITING: Final = (
    SELECT
    + """
WHERE id IN (SELECT id FROM {schema}.pending UNION ALL SELECT id FROM {schema}.scheduled)
ORDER BY id
"""
)


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


@pytest.fixture
def outbox_messages() -> Callable[..., Any]:
    """List what a transaction would send: `outbox_messages(session)`, oldest first.

    Outside of one: what waits to be sent. Takes what `using` takes, to be awaited where that is
    asynchronous; in Django, nothing.
    """
    return _messages


def _messages(target: object | None = None) -> list[OutboxMessage] | Awaitable[list[OutboxMessage]]:
    target = target if target is not None else settings.django_alias(current_app)
    if target is None:
        raise NoTransaction.about(task="outbox_messages(): what")
    joined = target_for(target, settings.schema(current_app))
    committing = not joined.in_transaction()
    rows = joined.fetch(UNCOMMITTED)
    if not isinstance(rows, list):
        return _awaited(joined, rows, committing)
    if committing and not rows:
        rows = cast(Rows, joined.fetch(WAITING))
    return [_message(row) for row in rows]


async def _awaited(joined: Target, found: Awaitable[Rows], committing: bool) -> list[OutboxMessage]:
    rows = await found
    if committing and not rows:
        rows = await cast(Awaitable[Rows], joined.fetch(WAITING))
    return [_message(row) for row in rows]


def _message(row: tuple[Any, ...]) -> OutboxMessage:
    message_id, task, exchange, key, headers_json, body, content_type, encoding, eta, expires = row
    headers = json.loads(headers_json)
    body = bytes(body)
    if compression := headers.get("compression"):
        body = decompress(body, compression)
    payload = loads(body, content_type, encoding, accept={content_type})
    args, kwargs = (payload[0], payload[1]) if "task" in headers else (payload, {})
    return OutboxMessage(message_id, task, args, kwargs, exchange, key, headers, eta, expires)
