"""Runs a task body once per message: its effects and its inbox row commit together, or neither.

A body that raises, `retry()` included, leaves nothing behind; `replace()` commits. A database that
is away fails no task: its message goes back to the queue.
"""

import inspect
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import wraps
from itertools import count
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from celery import Task  # quoted below: in Celery 5.4 it takes no parameters at run time
from celery.exceptions import Ignore
from celery.local import Proxy
from celery.utils.log import get_logger

from celery_inbox import store, transient
from celery_inbox.errors import BackToQueue
from celery_inbox.store import Delivery
from celery_inbox.targets import Target, opened

logger = get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the body ended, now or on an earlier delivery: with a value, or with Ignore."""

    value: Any = None
    ignore: Ignore | None = None

    def deliver(self) -> Any:
        if self.ignore is not None:
            raise self.ignore
        return self.value


def idempotent(
    connect: Callable[[], Any],
    *,
    key: Callable[..., str] | None = None,
    wait: float = 30.0,
) -> Callable[[Callable[Concatenate[Any, Any, P], R]], Callable[Concatenate[Any, P], R]]:
    """Make a bound task's database effects happen once, however often its message arrives.

    The body gets what ``connect()`` returned as its second argument and does its work through
    it, without committing. A duplicate returns the first run's result without running.

    connect: returns a psycopg ``Connection`` or an SQLAlchemy ``Session`` (closed afterwards), a
        context manager that yields one (a pool's ``connection()``), or a Django database alias.
    key: called with the task's arguments, returns what to remember instead of the message id,
        so that two messages which mean the same run once. Remembered per task name.
    wait: seconds a duplicate waits for a first delivery that is still running, before it goes
        back to the queue.
    """
    _refuse_a_body(connect)

    def decorate(body: Callable[Concatenate[Any, Any, P], R]) -> Callable[Concatenate[Any, P], R]:
        if isinstance(body, Task | Proxy):
            raise TypeError(f"{body!r} is a task already: put @idempotent below @app.task")

        @wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            task, arguments = _bound_task(body, args), args[1:]
            delivery = _delivery(task, key, arguments, kwargs)

            def attempt() -> _Outcome:
                with opened(connect) as target, target.transaction():

                    def effects() -> Any:
                        return body(task, target.handle, *arguments, **kwargs)

                    return _once(task, target, delivery, wait, effects)

            return _persistently(task, delivery, attempt).deliver()

        # What Celery checks the arguments of a call against: everything but the connection.
        vars(run)["__signature__"] = _without_connection(body)
        return cast("Callable[Concatenate[Any, P], R]", run)

    return decorate


def _refuse_a_body(connect: Callable[..., Any]) -> None:
    """`@idempotent` without a call would take the task's own body for what connects."""
    if not inspect.isfunction(connect):
        return
    try:
        inspect.signature(connect).bind()
    except TypeError as error:
        raise TypeError(
            f"{connect.__qualname__} cannot be called without arguments ({error}): write "
            "@idempotent(connect), where connect() returns the connection to work on"
        ) from error


def _once(
    task: "Task[..., Any]",
    target: Target,
    delivery: Delivery | None,
    wait: float,
    effects: Callable[[], Any],
) -> _Outcome:
    """Run the effects in the target's transaction, unless this message was seen before."""
    if delivery is None:
        return _joined(task, target, effects)
    earlier = store.claim(target, delivery, wait)
    if earlier is not None:
        logger.info("%s[%s] ran before: answering with its result", task.name, delivery.key)
        # What was replaced has no result of its own: its successor reports one.
        return _Outcome(earlier.value()) if earlier.result else _Outcome(ignore=Ignore())
    outcome = _joined(task, target, effects)
    result = None if outcome.ignore else store.encode(task.name, outcome.value)
    store.record(target, delivery, result)
    return outcome


def _joined(task: "Task[..., Any]", target: Target, effects: Callable[[], Any]) -> _Outcome:
    """Run the effects; tasks they send through an outbox are rows in the same transaction."""
    outbox = getattr(task.app, "outbox", None)
    joined: AbstractContextManager[Any] = (
        nullcontext() if outbox is None else outbox.using(target.handle)
    )
    with joined:
        try:
            return _Outcome(effects())
        except Ignore as ignore:  # an ending, not a failure: what was done before it stays
            return _Outcome(ignore=ignore)


def _persistently(
    task: "Task[..., Any]", delivery: Delivery | None, attempt: Callable[[], _Outcome]
) -> _Outcome:
    """Attempt again, with pauses, while only the database stood in the way."""
    give_up = time.monotonic() + transient.PATIENCE
    for number in count(1):
        try:
            return attempt()
        except Exception as error:
            if not transient.worth_repeating(error):
                raise
            outage, late = transient.is_outage(error), time.monotonic() > give_up
            if late and outage and delivery is not None:
                logger.warning("%s: back to the queue, no database (%s)", task.name, error)
                raise BackToQueue("the database is away") from error
            if late or (number >= transient.ATTEMPTS and not outage):
                raise
            logger.info("%s: attempt %d rolled back (%s)", task.name, number, error)
        time.sleep(transient.pause(number))
    raise AssertionError("count() never ends")


def _delivery(
    task: "Task[..., Any]", key: Callable[..., str] | None, args: tuple[Any, ...], kwargs: Any
) -> Delivery | None:
    """What to remember this delivery by; None for a direct or eager call: no message, no twin."""
    request = task.request
    if request.called_directly or request.is_eager:
        return None
    if key is None:
        name = str(request.id)
    else:
        chosen = key(*args, **kwargs)
        if not isinstance(chosen, str) or not chosen:
            raise TypeError(f"{task.name}: key= returned {chosen!r}, not a non-empty string")
        name = f"{task.name}:{chosen}"
    # replace() passes the id on to its successor, which must not look like a duplicate.
    nesting = request.get("replaced_task_nesting") or 0
    return Delivery(f"{name}/{nesting}" if nesting else name, task.name)


def _bound_task(body: Callable[..., Any], args: tuple[Any, ...]) -> "Task[..., Any]":
    if args and isinstance(args[0], Task):
        return args[0]
    raise TypeError(
        f"{body.__qualname__} is @idempotent and needs its task: declare it @app.task(bind=True)"
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
