"""A Celery worker's part in this process: a message is read from the outbox, and its task run."""

import json
from typing import Any

from celery.app.trace import trace_task
from django.db import connections  # type: ignore[import-untyped]  # Django ships no types
from kombu.serialization import loads

FIND = """
SELECT task, headers::text, body, content_type, content_encoding FROM outbox.message
WHERE message_id = %s ORDER BY id DESC LIMIT 1
"""


def carry_out(app: Any, task_id: str, hostname: str = "celery@here", **headers: Any) -> Any:
    """Run the task of a message as a worker would that has received it; what it returned.

    Of a task with several messages the last; `headers` are others than the message has.
    """
    with connections["default"].cursor() as cursor:
        cursor.execute(FIND, [task_id])
        name, own, body, content_type, encoding = cursor.fetchone()
    args, kwargs, embedded = loads(bytes(body), content_type, encoding, accept={content_type})
    request = {
        **json.loads(own),
        **embedded,
        "args": args,
        "kwargs": kwargs,
        "hostname": hostname,
        "is_eager": False,
        "called_directly": False,
        "delivery_info": {},
        **headers,
    }
    task = app.tasks[name]
    vars(task).pop("__trace__", None)  # made for another backend
    return trace_task(task, task_id, args, kwargs, request, app=app)
