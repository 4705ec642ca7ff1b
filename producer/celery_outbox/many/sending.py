"""Sends many tasks: a few the long way, as ever, and the others as these were sent.

Each call is made into a message as it is taken from whoever yields it, and put where it belongs
before the next one is asked for. So memory stays flat, whoever yields may use the connection and
its savepoints, and what is stored is in the order of sending.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from celery import Task
from kombu.utils.uuid import uuid

from celery_outbox import settings
from celery_outbox.errors import OutboxError, UnsupportedOption
from celery_outbox.many import shortcut
from celery_outbox.many.ids import TaskIds
from celery_outbox.many.noting import noting
from celery_outbox.many.pattern import Making, Pattern
from celery_outbox.many.shown import shower
from celery_outbox.many.storing import INERT, Storing, unfinished
from celery_outbox.message import Filled
from celery_outbox.nesting import open_blocks

#: Messages that follow one pattern; the next ones learn anew, as time goes by.
FOLLOWERS: Final = 998

#: Positional and named arguments, as a call has them.
Call = tuple[Any, Any]


def send_many(
    app: Any, dispatch: Any, task: Any, calls: Iterable[tuple[Any, ...]], options: dict[str, Any]
) -> TaskIds:
    """Send `task`, once for each of `calls`. See `Outbox.send_many`."""
    sending = _Sending(app, dispatch, _own(app, task), options)
    iterator = iter(calls)
    sending.inert = type(iterator) in INERT
    with unfinished(sending.finish), _finishing(sending):
        for number, call in enumerate(iterator):
            sending.send(*_arguments(call, number))
    return sending.ids


@contextmanager
def _finishing(sending: "_Sending") -> Iterator[None]:
    """Store what was sent before an error, too, as a loop would have, and let the error pass."""
    try:
        yield
    except BaseException as error:
        try:
            sending.finish()
        except Exception as failure:
            if failure is not error:
                error.add_note(_also_failed(failure))
        raise
    sending.finish()


def _also_failed(failure: Exception) -> str:
    """Say so without repeating what a server may have said of a row."""
    reason = str(failure) if isinstance(failure, OutboxError) else type(failure).__name__
    return f"Nor could what send_many() had sent before be stored: {reason}"


class _Sending:
    """One call of send_many."""

    def __init__(self, app: Any, dispatch: Any, task: Any, options: dict[str, Any]) -> None:
        self.ids = TaskIds()
        #: Whether none of the caller's code runs between two calls.
        self.inert = False
        self._app = app
        #: The Dispatch of the app.
        self._dispatch = dispatch
        self._task = task
        self._options = options
        self._making = _making(app, task, options)
        #: What messages follow, once it is learned, how many still may, and where they go.
        self._pattern: Pattern | None = None
        self._left = 0
        self._storing: Storing | None = None
        #: The blocks that were open then.
        self._blocks: object = None
        #: What is learned of the first message of a portion, to compare the second with.
        self._first: Pattern | None = None
        self._trail: Any = None

    def send(self, args: Any, kwargs: Any) -> None:
        """Send one task."""
        pattern, storing = self._pattern, self._storing
        if pattern is None or storing is None or open_blocks() is not self._blocks:
            self._forget()
            self._learn(args, kwargs)
            return
        filled = self._fill(pattern, args, kwargs)
        if filled is None:
            self._forget()
            self._send(args, kwargs)
            return
        storing.put(filled)
        self.ids.add(filled.message_id)
        if self._trail is not None:
            self._trail.add_trail(self._result(filled.message_id))
        self._left -= 1
        if not self._left:
            self._forget()

    def finish(self) -> None:
        """Store what is not stored yet."""
        if self._storing is not None:
            self._storing.finish()

    def _forget(self) -> None:
        """Store what was sent, and learn anew for what comes."""
        if self._pattern is None:
            return
        self.finish()
        self._pattern = self._storing = self._first = None

    def _fill(self, pattern: Pattern, args: Any, kwargs: Any) -> Filled | None:
        if not isinstance(self._task, str) and self._task.typing:
            self._task.__header__(*args, **kwargs)  # raises TypeError, as the task would
        try:
            return pattern.fill(uuid(), args, kwargs)
        except Exception:  # the long way raises it again, as Celery and the outbox word it
            return None

    def _learn(self, args: Any, kwargs: Any) -> None:
        """Send the long way; the second time, follow that if it is like the first."""
        if self._making is None or not self._is_open():
            self._send(args, kwargs)
            return
        with noting() as noted:
            self._send(args, kwargs)
        if len(noted) != 1:
            return
        try:
            pattern = Pattern(noted[0], self._making)
        except ValueError:
            self._making = None  # nor could any other be
            return
        if self._first is not None and pattern.is_like(self._first):
            self._pattern, self._left, self._blocks = pattern, FOLLOWERS, open_blocks()
            decision = noted[0].decision
            self._storing = self._dispatch.storing(decision, pattern.like, inert=self.inert)
            follows = self._options.get("add_to_parent", True)
            self._trail = self._app.current_worker_task if follows else None
        self._first = pattern

    def _is_open(self) -> bool:
        """Tell whether nobody would notice that messages are made by a pattern."""
        if self._dispatch.is_heard():
            return False
        return shortcut.is_open(self._app, self._task, self._options)

    def _send(self, args: Any, kwargs: Any) -> None:
        """Send a task the long way."""
        if isinstance(self._task, str):
            result = self._app.send_task(self._task, args, kwargs, **self._options)
        else:
            result = self._task.apply_async(args, kwargs, **self._options)
        self.ids.add_result(result, final=self._options.get("dedup_key") is None)

    def _result(self, task_id: str) -> Any:
        kind = self._app if isinstance(self._task, str) else self._task
        return kind.AsyncResult(task_id)


def _own(app: Any, task: Any) -> Any:
    """Return a task of `app` itself, where a proxy was given. Raises TypeError for another's."""
    if isinstance(task, str):
        return task
    found = app.tasks.get(task.name) if isinstance(task, Task) else None
    if found is None or task.app is not app:
        raise TypeError(
            f"send_many() takes a task of this app, or a task's name, not {type(task).__name__}"
        )
    return found


def _making(app: Any, task: Any, options: dict[str, Any]) -> Making | None:
    """Find out how bodies are made. Raises UnsupportedOption for what no two tasks can share."""
    if "task_id" in options:
        raise UnsupportedOption.about(
            task=task if isinstance(task, str) else task.name,
            option="task_id=",
            reason="send_many() sends many tasks, and each has an id of its own",
        )
    kind = app._tasks.get(task) if isinstance(task, str) else task
    given = (kind._get_exec_options() if kind is not None else {}) | options
    return Making(
        serializer=given.get("serializer") or app.conf.task_serializer,
        compression=given.get("compression") or app.conf.task_compression,
        show=shower(app.amqp),
        max_body=settings.max_body(app),
    )


def _arguments(call: Any, number: int) -> Call:
    """Return the positional and the named arguments of a call. Raises TypeError."""
    match call:
        case (tuple(), dict()) if type(call) is tuple:
            return call
        case tuple() | list():
            return call, {}
    raise TypeError(
        f"call {number} is of type {type(call).__name__}: give a tuple of positional arguments,"
        " or a pair of such a tuple and a dictionary of named ones"
    )
