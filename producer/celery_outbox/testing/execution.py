"""Runs one task as a worker would: from the bytes of its message, by Celery's own code.

`self.request`, signals, the result, links, errbacks and the next step of a canvas come out of that
as they do in a worker. There is no pool, so time limits are not kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery, _state, states
from celery.app.trace import build_tracer
from celery.exceptions import Reject
from celery.result import denied_join_result
from celery.utils.imports import symbol_by_name
from celery.utils.nodenames import gethostname
from celery.worker import strategy
from kombu import Message
from kombu.serialization import prepare_accept_content
from kombu.utils.json import loads

from celery_outbox.testing.messages import OutboxMessage, Row


@dataclass(frozen=True, slots=True, repr=False)
class TaskRun:
    """One run of a task, and what came of it."""

    message: OutboxMessage
    #: Celery's: SUCCESS, FAILURE, RETRY, IGNORED (as by replace()), REJECTED, or REVOKED for what
    #: had expired and was not run.
    state: str
    #: What it returned.
    result: Any = None
    #: What it raised, or of a retry, what made it retry.
    exception: BaseException | None = None
    #: How often it had been retried before.
    retries: int = 0

    def __repr__(self) -> str:
        came = self.result if self.exception is None else self.exception
        return f"<{self.task} {self.state} {came!r}>"

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.message.task

    @property
    def task_id(self) -> str:
        """Its id, which a retry keeps."""
        return self.message.message_id

    @property
    def failed(self) -> bool:
        """Whether it ended in an error, and not as a retry or by the task's own choice."""
        unreadable = self.state == states.REJECTED and not isinstance(self.exception, Reject)
        return unreadable or self.state == states.FAILURE

    @property
    def requeued(self) -> bool:
        """Whether it went back to its queue."""
        return isinstance(self.exception, Reject) and bool(
            getattr(self.exception, "requeue", False)
        )


def execute(app: Celery, row: Row, *, redelivered: bool, failure: BaseException | None) -> TaskRun:
    """Run the task of a message; where `failure` is given, its body raises that instead."""
    task = app.tasks[row.task]
    try:
        request = _request(app, task, row, redelivered)
    except Exception as error:  # such as ContentDisallowed: a worker rejects it
        return TaskRun(row.message, states.REJECTED, exception=error)
    with _current(app), _raising(task, failure), denied_join_result():
        # Made anew: Celery's own is made once, and knows what the task's body was then.
        trace = build_tracer(task.name, task, app.loader, gethostname(), app=app)
        traced = trace(request["id"], request["args"], request["kwargs"], request)
    retries = request.get("retries") or 0
    if traced.info is None:
        return TaskRun(row.message, states.SUCCESS, result=traced.retval, retries=retries)
    raised = traced.info.retval
    if traced.info.state == states.RETRY:
        raised = raised.exc or raised
    return TaskRun(row.message, traced.info.state, exception=raised, retries=retries)


def _request(app: Any, task: Any, row: Row, redelivered: bool) -> dict[str, Any]:
    """Return what the tracer is given, as the worker's Request makes it of a message."""
    untyped: Any = strategy  # of which the stubs know a part
    kind: Any = Message  # of which they know no bytes
    message = kind(
        body=bytes(row.body),
        content_type=row.content_type,
        content_encoding=row.content_encoding,
        headers=loads(row.headers),
        properties=loads(row.properties),
        delivery_info={
            "exchange": row.exchange,
            "routing_key": row.routing_key,
            "redelivered": redelivered,
        },
        accept=prepare_accept_content(app.conf.accept_content),
    )
    for _, error, trace in message.errors:
        raise error.with_traceback(trace)
    if "args" in message.payload:  # task protocol 1
        body, headers, decoded, utc = untyped.hybrid_to_proto2(message, message.payload)
    else:
        body, headers, decoded = message.body, message.headers, False
        utc = app.uses_utc_timezone()
    received = symbol_by_name(task.Request)(
        message, app=app, task=task, body=body, headers=headers, decoded=decoded, utc=utc
    )
    _, _, embedded = body if decoded else message.payload
    return {**received.request_dict, "is_eager": False, **(embedded or {})}


@contextmanager
def _current(app: Celery) -> Iterator[None]:
    """Have tasks find the app that runs them as the current one, in this thread."""
    before = _state._tls.current_app  # type: ignore[attr-defined]  # not in the stubs
    app.set_current()
    try:
        yield
    finally:
        _state._tls.current_app = before  # type: ignore[attr-defined]  # the same


@contextmanager
def _raising(task: Any, failure: BaseException | None) -> Iterator[None]:
    """Have the body of a task raise; what wraps it, such as `autoretry_for`, sees the error."""
    if failure is None:
        yield
        return

    def body(*_: Any, **__: Any) -> Any:
        raise failure

    name = "_orig_run" if hasattr(task, "_orig_run") else "run"
    own = vars(task)
    before = own.get(name)
    setattr(task, name, body)
    try:
        yield
    finally:
        if before is None:
            delattr(task, name)
        else:
            setattr(task, name, before)
