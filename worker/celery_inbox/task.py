"""The decorator: what a task body must look like, and what a delivery of it is remembered by.

A body that raises, `retry()` included, leaves nothing behind; `replace()` commits. A database that
is away fails no task: its message goes back to the queue.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from celery import Task  # quoted below: in Celery 5.4 it takes no parameters at run time
from celery.local import Proxy

from celery_inbox import store
from celery_inbox.attempts import Run, joined
from celery_inbox.calls import Attempt, attempt_around, running
from celery_inbox.following import keep_ids
from celery_inbox.models import dumped
from celery_inbox.retrying import begin_attempt, number_of, number_runs
from celery_inbox.sources import connect_by
from celery_inbox.store import Delivery

P = ParamSpec("P")
R = TypeVar("R")


def idempotent(
    connect: Any,
    *,
    key: Callable[..., str] | None = None,
    wait: float = 30.0,
) -> Callable[[Callable[Concatenate[Any, Any, P], R]], Callable[Concatenate[Any, P], R]]:
    """Make a bound task's database effects happen once, however often its message arrives.

    The body gets a connection or session as its second argument and does its work through it,
    without committing. A duplicate returns the first run's result without running. One that calls
    itself, or as a function another with the same `connect`, runs it as a part of its attempt.

    * `connect`: a database URL, whose connections are kept from task to task (psycopg); a
        ``ConnectionPool`` of psycopg_pool; an ``Engine`` or ``sessionmaker`` of SQLAlchemy; the
        alias of a Django database; or a function that returns a psycopg ``Connection`` or an
        SQLAlchemy ``Session`` (closed afterwards), a context manager that yields one, or an alias.
    * `key`: called with the task's arguments, returns what to remember instead of the message id,
        so that two messages which mean the same run once. Remembered per task name.
    * `wait`: seconds a duplicate waits for a first delivery that is still running, before it goes
        back to the queue.
    """
    connection = connect_by(connect)

    def decorate(body: Callable[Concatenate[Any, Any, P], R]) -> Callable[Concatenate[Any, P], R]:
        if isinstance(body, Task | Proxy):
            raise TypeError(f"{body!r} is a task already: put @idempotent below @app.task")
        _refuse_what_only_begins(body)

        @wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            task, arguments = _bound_task(body, args), args[1:]
            if (outer := attempt_around(connect, task.request)) is not None:
                with joined(task, outer.handle):
                    return body(task, outer.handle, *arguments, **kwargs)
            delivery = _delivery(task, key, arguments, kwargs)
            if delivery is not None:
                keep_ids(task.request)
                number_runs(task)

            def on(handle: Any) -> Any:
                begin_attempt(task.request)
                with running(Attempt(connect, handle), task.request):
                    return body(task, handle, *arguments, **kwargs)

            def stored(value: Any) -> str:
                return store.encode(task.name, dumped(task, run, value))

            return Run(task, delivery, connection, wait, on, stored).persistently().deliver()

        # What Celery checks the arguments of a call against: everything but the connection.
        vars(run)["__signature__"] = _without_connection(body)
        return cast("Callable[Concatenate[Any, P], R]", run)

    return decorate


def _delivery(
    task: "Task[..., Any]", key: Callable[..., str] | None, args: tuple[Any, ...], kwargs: Any
) -> Delivery | None:
    """What to remember this delivery by; None for a direct or eager call: no message, no twin."""
    request = task.request
    if request.called_directly or request.is_eager:
        return None
    id = str(request.id)
    if key is None:
        name = id
    else:
        chosen = key(*args, **kwargs)
        if not isinstance(chosen, str) or not chosen:
            what = type(chosen).__qualname__ if chosen != "" else "an empty string"
            raise TypeError(f"{task.name}: key= returned {what}, not a non-empty string")
        name = f"{task.name}:{chosen}"
    # replace() passes the id on to its successor, which must not look like a duplicate.
    nesting = request.get("replaced_task_nesting") or 0
    if nesting:
        name = f"{name}/{nesting}"
    if repeated := number_of(request):
        name = f"{name}/run-{repeated}"
    return Delivery(name, task.name, id)


def _bound_task(body: Callable[..., Any], args: tuple[Any, ...]) -> "Task[..., Any]":
    if args and isinstance(args[0], Task):
        return args[0]
    raise TypeError(
        f"{body.__qualname__} is @idempotent and needs its task: declare it @app.task(bind=True)"
    )


def _refuse_what_only_begins(body: Callable[..., Any]) -> None:
    """To call it runs nothing of it, and what it returns is no result."""
    if inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body):
        kind, way_out = "asynchronous", "a plain function, which may call asyncio.run()"
    elif inspect.isgeneratorfunction(body):
        kind, way_out = "a generator", "a function that returns, a list say"
    else:
        return
    raise TypeError(
        f"{body.__qualname__} is @idempotent and {kind}, of which a worker would run nothing: "
        f"make it {way_out}"
    )


def _without_connection(body: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(body)
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise TypeError(
            f"{body.__qualname__}{signature} is @idempotent: its first two parameters must be the "
            "task and the connection, as in (self, conn, ...)"
        )
    connection = positional[1] if len(positional) > 1 else None
    return signature.replace(parameters=[p for p in parameters if p is not connection])
