"""Tells how the work on a message ended, as a worker's main process hears of it.

Celery tells a request of every ending, whatever the pool, and also when the child that ran it has
died: so nothing here depends on a child. What is given back to the broker has not ended.
"""

from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.imports import symbol_by_name

#: A run's number counts its retries, and this many more each time the task replaced itself.
REPLACED = 1_000_000
#: Message ids are short; a task's name may be anything that somebody sent.
MAX_NAME = 255


#: How the work on one message ended, or that it is held: message id, task, outcome, error, run,
#: received and finished, by the monotonic clock. Made for every task: a bare tuple costs a fifth
#: of a named one.
Ending = tuple[str, str, str, str | None, int, float | None, float | None]
Note = Callable[[Ending], None]


def follow_tasks(tasks: Iterable[Any], note: Note) -> None:
    """Have the requests that a worker will make of these tasks tell of their endings.

    Before it makes their strategies. A signal for every request would cost more than the receipt.
    """
    followed: dict[type, type] = {}
    for task in tasks:
        kind = symbol_by_name(task.Request)
        if not issubclass(kind, _Followed):
            if kind not in followed:
                followed[kind] = _over(kind, note_ending=staticmethod(note))
            task.Request = followed[kind]


def follow(request: Any, note: Note) -> None:
    """Have a request that was just received tell of its ending, if it was made in another way."""
    kind = type(request)
    if issubclass(kind, _Followed):
        return
    if kind not in _classes:
        _classes[kind] = _over(kind)
    request.__class__ = _classes[kind]
    request.note_ending = note
    request.received_monotonic = monotonic()


def held(request: Any, older_than: float) -> Ending | None:
    """What to say of a request that is not done with yet, if it was received so long ago."""
    received = getattr(request, "received_monotonic", None)
    if received is None or monotonic() - received < older_than:
        return None
    return _ending(request, "held", None, None)


def revoked(request: Any, task: str, reason: str | None) -> Ending:
    """The ending of what was revoked, or has expired."""
    run = run_number({"retries": request.retries, **vars(request)})
    return _now(request.id, task, "revoked", reason, run)


def unreadable(message: Any, outcome: str, error: str | None) -> Ending | None:
    """The ending of a message that became no request; None if it does not even have an id."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    id_ = headers.get("id") or message.properties.get("correlation_id")
    if not id_:
        return None
    return _now(id_, headers.get("task") or "", outcome, error, run_number(headers))


def run_number(headers: Mapping[str, Any]) -> int:
    """The number of a run by the headers of its message: later runs have higher numbers."""
    counts = (headers.get("replaced_task_nesting"), headers.get("retries"))
    nesting, retries = (n if isinstance(n, int) and 0 <= n < REPLACED else 0 for n in counts)
    return nesting * REPLACED + retries


def name_of(error: BaseException) -> str:
    """The name of the exception's class, also where it could not be pickled."""
    name = getattr(error, "exc_cls_name", None) or type(error).__qualname__
    return clean(name)


def clean(text: object) -> str:
    """Text that Postgres can hold; nearly all is so already."""
    if type(text) is str and text.isascii() and len(text) <= MAX_NAME and "\0" not in text:
        return text
    encoded = str(text).replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace")
    return encoded[:MAX_NAME].decode(errors="ignore")


def _outcome(error: BaseException) -> str | None:
    """What an exception makes of a run; None for what is announced in another way."""
    match error:
        case Terminated():
            return None  # the signal that it was revoked tells
        case Reject():
            return "rejected"
        case Retry():
            return "retried"
        case Ignore():
            return "ignored"
        case WorkerLostError() | SystemExit() | KeyboardInterrupt():
            return "lost"
    return "failed"


def _ending(request: Any, outcome: str, error: str | None, finished: float | None) -> Ending:
    # Text is cleaned as it is written, on the other thread.
    id_, name, headers = request.id, request.name, request.request_dict
    again = headers.get("retries") or headers.get("replaced_task_nesting")
    return (
        id_ if type(id_) is str else clean(id_),
        name if type(name) is str else clean(name),
        outcome,
        error,
        run_number(headers) if again else 0,
        request.received_monotonic,
        finished,
    )


def _now(id_: object, task: object, outcome: str, error: str | None, run: int) -> Ending:
    return clean(id_), clean(task), outcome, error, run, None, monotonic()


_classes: dict[type, type] = {}


def _over(kind: type, **more: Any) -> type:
    """The kind of request that tells of its ending."""
    return type(kind.__name__, (_Followed, kind), {"on_success": kind.on_success, **more})  # type: ignore[attr-defined]  # a Request


def _telling(on_success: Callable[..., Any]) -> Callable[..., Any]:
    """What Celery calls when the pool is done; a failure goes on to `on_failure`."""

    def tell(self: Any, failed__retval__runtime: Any, **options: Any) -> Any:
        answer = on_success(self, failed__retval__runtime, **options)
        if not failed__retval__runtime[0]:
            self.note_ending(_ending(self, "succeeded", None, monotonic()))
        return answer

    return tell


class _Followed:
    """What is laid over Celery's request, in the main process of a worker."""

    given_back = False
    had_succeeded = False
    note_ending: Note
    received_monotonic: float | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        """Celery makes a class of each task, with an `on_success` that calls no other."""
        super().__init_subclass__(**options)
        own = vars(cls).get("on_success")
        if own is not None:
            cls.on_success = _telling(own)  # type: ignore[attr-defined]  # laid over a Request

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.received_monotonic = monotonic()

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> Any:
        """Failed, retried, rejected, ignored, or lost with its child."""
        answer = super().on_failure(exc_info, *args, **options)  # type: ignore[misc]  # laid over a Request
        error = exc_info.exception
        if type(error).__name__ == "ExceptionWithTraceback":  # billiard's parcel of one
            error = error.exc
        outcome = "succeeded" if self.had_succeeded else _outcome(error)
        cancelled = getattr(self, "_already_cancelled", False)
        if outcome and not self.given_back and not cancelled:
            name = None if outcome in ("succeeded", "retried", "ignored") else name_of(error)
            self.note_ending(_ending(self, outcome, name, monotonic()))
        return answer

    def reject(self, requeue: bool = False) -> Any:
        """Given back to the broker, it comes again: that is no ending."""
        if not self.acknowledged:  # type: ignore[attr-defined]  # laid over a Request
            self.given_back = requeue
        return super().reject(requeue=requeue)  # type: ignore[misc]  # laid over a Request

    def _success_was_stored(self) -> Any:
        """A child that died after its task had succeeded took nothing with it (Celery 5.7)."""
        stored = super()._success_was_stored()  # type: ignore[misc]  # laid over a Request
        self.had_succeeded = bool(stored)
        return stored
