"""What the outbox knows of a Django task that no worker has started yet."""

import json
from typing import Any, Final

from django.tasks import TaskResultStatus  # type: ignore[import-untyped]  # since Django 6.0
from kombu.compression import decompress
from kombu.serialization import loads

from celery_outbox import settings
from celery_outbox.django.tasks.errors import UnreadableOutbox
from celery_outbox.django.tasks.records import Record
from celery_outbox.django.tasks.running import NAME
from celery_outbox.errors import OutboxNotReady, UnpublishableMessage
from celery_outbox.targets.django import DjangoTarget

# The last message with the id: a task that was retried has several. Its error, if it was given up.
FIND: Final = """
SELECT m.task, m.headers::text, m.body, m.content_type, m.content_encoding, coalesce(
    (SELECT last_error FROM {schema}.dead WHERE message_id = %s AND id = m.id),
    (SELECT coalesce(last_error, 'expired') FROM {schema}.expired
      WHERE message_id = %s AND id = m.id))
FROM {schema}.message m WHERE m.message_id = %s ORDER BY m.id DESC LIMIT 1
"""


def waiting(app: Any, task_id: str) -> Record | None:
    """Return the record of a task whose message the outbox has, seen from this transaction.

    Raises UnreadableOutbox.
    """
    alias = settings.django_alias(app)
    if alias is None:
        return None
    schema = settings.schema(app)
    try:
        rows = DjangoTarget(alias, schema).fetch(FIND, task_id, task_id, task_id)
    except OutboxNotReady:
        raise UnreadableOutbox.about(schema=schema) from None
    if not rows or rows[0][0] != NAME:
        return None
    _, headers, body, content_type, encoding, error = rows[0]
    path, args, kwargs, facts = _call(json.loads(headers), bytes(body), content_type, encoding)
    record = {"path": path, "args": args, "kwargs": kwargs, **facts}
    if error is None:
        return {**record, "status": TaskResultStatus.READY.value}
    # It was unable to start; outbox-relay retry makes it ready again.
    path = f"{UnpublishableMessage.__module__}.{UnpublishableMessage.__qualname__}"
    failure = {"exception_class_path": path, "traceback": error}
    return {**record, "status": TaskResultStatus.FAILED.value, "errors": [failure]}


def _call(
    headers: dict[str, Any], body: bytes, content_type: str, encoding: str
) -> tuple[str, list[Any], dict[str, Any], Record]:
    """Return what `run` will be called with."""
    if compression := headers.get("compression"):
        body = decompress(body, compression)
    (path, args, kwargs), facts, *_ = loads(body, content_type, encoding, accept={content_type})
    return path, args, kwargs, facts
