"""What the outbox knows of a Django task that no worker has started yet."""

import json
from datetime import timedelta
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

# The last message with the id, as a task that was retried has several. Its error, if it was given
# up; and whether it was published so many seconds ago, which for null it never was.
FIND: Final = """
SELECT m.task, m.headers::text, m.body, m.content_type, m.content_encoding,
    coalesce(
        (SELECT d.last_error FROM {schema}.dead d WHERE d.message_id = %s AND d.id = m.id),
        (SELECT coalesce(e.last_error, 'expired') FROM {schema}.expired e
          WHERE e.message_id = %s AND e.id = m.id)),
    EXISTS (SELECT FROM {schema}.sent s WHERE s.message_id = %s AND s.id = m.id
               AND coalesce(s.sent_at, '-infinity') < now() - %s::float8 * interval '1 second')
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
        target, kept = DjangoTarget(alias, schema), _seconds_kept(app)
        rows = target.fetch(FIND, task_id, task_id, task_id, kept, task_id)
    except OutboxNotReady:
        raise UnreadableOutbox.about(schema=schema) from None
    if not rows or rows[0][0] != NAME:
        return None
    _, headers, body, content_type, encoding, error, long_ago = rows[0]
    if long_ago:  # it may have run: its record would be gone by now
        return None
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


def _seconds_kept(app: Any) -> float | None:
    """Return how long Celery keeps a result; None for ever."""
    expires = app.conf.result_expires
    return expires.total_seconds() if isinstance(expires, timedelta) else expires or None
