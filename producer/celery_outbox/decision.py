"""Where a send goes: who sends it is found out once, then looked up in one table.

Pure: dispatch.py finds out the facts, and carries out what is decided here.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final


class Process(Enum):
    """Where the sending code runs."""

    TASK = "a worker runs a task here, one that is not eager"
    MAIN = "the main process of a worker, or beat, with no task running"
    OTHER = "anywhere else, such as the web"


class Origin(Enum):
    """Who sends. All but USER are a worker's own doing, which its task does not decide upon."""

    USER = "code that calls delay() and the like"
    RETRY = "the running task's own retry(), whose exception ends its transaction"
    REPLACEMENT = "the running task's own replace(), whose exception ends its transaction"
    MEMBER = "the running task's own add_to_chord(), which has counted it whatever rolls back"
    CONTINUATION = "what follows a task: links, the next step of a chain, the body of a chord"


class Scope(Enum):
    """The transaction that the code which sends is in, as far as it was named."""

    NONE = "no transaction was named"
    TRANSACTION = "that of outbox=, or of the innermost block"
    COMMITTING = "that of a block which commits although replace() raises, or one within it"


class Destination(Enum):
    """What becomes of the message."""

    #: Put into the transaction of its scope.
    JOIN = auto()
    #: Stored in the configured database: in Django in the transaction its connection is in, if any,
    #: else in one of its own, durable when the send returns.
    STORE = auto()
    #: Stored there in a transaction of its own, whatever else is open, and tried for half a minute.
    STORE_APART = auto()
    #: Sent to the broker, as Celery does.
    BROKER = auto()
    #: NoTransaction.
    REFUSE = auto()


#: Who sends, and in what scope -> where it goes with a database configured, and without one.
TABLE: Final[dict[tuple[Origin, Scope], tuple[Destination, Destination]]] = {
    (Origin.USER, Scope.NONE): (Destination.STORE, Destination.REFUSE),
    (Origin.USER, Scope.TRANSACTION): (Destination.JOIN, Destination.JOIN),
    (Origin.USER, Scope.COMMITTING): (Destination.JOIN, Destination.JOIN),
    (Origin.RETRY, Scope.NONE): (Destination.STORE_APART, Destination.BROKER),
    (Origin.RETRY, Scope.TRANSACTION): (Destination.STORE_APART, Destination.BROKER),
    (Origin.RETRY, Scope.COMMITTING): (Destination.STORE_APART, Destination.BROKER),
    (Origin.REPLACEMENT, Scope.NONE): (Destination.STORE_APART, Destination.BROKER),
    (Origin.REPLACEMENT, Scope.TRANSACTION): (Destination.STORE_APART, Destination.BROKER),
    (Origin.REPLACEMENT, Scope.COMMITTING): (Destination.JOIN, Destination.JOIN),
    (Origin.MEMBER, Scope.NONE): (Destination.STORE_APART, Destination.BROKER),
    (Origin.MEMBER, Scope.TRANSACTION): (Destination.STORE_APART, Destination.BROKER),
    (Origin.MEMBER, Scope.COMMITTING): (Destination.STORE_APART, Destination.BROKER),
    (Origin.CONTINUATION, Scope.NONE): (Destination.STORE_APART, Destination.BROKER),
    (Origin.CONTINUATION, Scope.TRANSACTION): (Destination.JOIN, Destination.JOIN),
    (Origin.CONTINUATION, Scope.COMMITTING): (Destination.JOIN, Destination.JOIN),
}

#: What a task says by raising: sent under its own id.
ENDINGS: Final = frozenset({Origin.RETRY, Origin.REPLACEMENT})
#: What is sent within the body of a task, which can still be rejected.
WITHIN_BODY: Final = ENDINGS | {Origin.MEMBER}
#: Those of Celery's own tasks that send others. Not celery.map and its like, which run your code.
CANVAS_TASKS: Final = frozenset({"celery.chord_unlock", "celery.chord", "celery.group"})


def destination(origin: Origin, scope: Scope, *, has_database: Callable[[], bool]) -> Destination:
    """Return what becomes of a message. Whether there is a database is asked only if it matters."""
    with_database, without = TABLE[origin, scope]
    return with_database if with_database is without or has_database() else without


def origin_of(process: Process, running: Any, task: Any, *, follows: bool) -> Origin:
    """Find out who sends `task`, a message as Celery's create_task_message returned it.

    `running` is the task at work, if there is one; `follows` says that Celery named a parent.
    """
    if process is Process.OTHER:
        return Origin.USER
    if running is not None:
        if _is_retry(running.request, task):
            return Origin.RETRY
        if _is_replacement(running.request, task):
            return Origin.REPLACEMENT
        follows = follows or running.name in CANVAS_TASKS
        if not follows and _is_member(running.request, task):
            return Origin.MEMBER
    return Origin.CONTINUATION if follows else Origin.USER


def _is_retry(request: Any, task: Any) -> bool:
    facts = task.headers if "id" in task.headers else task.body  # task protocol 1
    return bool(facts["id"] == request.id and (facts["retries"] or 0) > (request.retries or 0))


def _is_member(request: Any, task: Any) -> bool:
    facts = task.headers if "id" in task.headers else task.body  # task protocol 1
    group = facts.get("group") or facts.get("taskset")
    return bool(request.chord and group and group == request.group)


def _is_replacement(request: Any, task: Any) -> bool:
    nesting = task.headers.get("replaced_task_nesting") or 0
    if task.headers.get("task") == "celery.chord_unlock":
        # What unlocks a chord carries no nesting of its own, but the chord's body, which does.
        (_, chord_body, *_), *_ = task.body
        nesting = chord_body["options"].get("replaced_task_nesting") or 0
    return bool(nesting > (request.get("replaced_task_nesting") or 0))
