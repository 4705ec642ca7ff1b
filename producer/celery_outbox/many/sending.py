"""Sends many tasks: a few the long way, as ever, and the others as these were sent.

Each call is made into a message as it is taken from whoever yields it, and what is made is handed
over a portion at a time. So memory stays flat, and the connection is free whenever somebody else's
code runs.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from celery import Task
from kombu.utils.uuid import uuid

from celery_outbox import settings
from celery_outbox.errors import UnsupportedOption
from celery_outbox.many import shortcut
from celery_outbox.many.ids import TaskIds
from celery_outbox.many.noting import noting
from celery_outbox.many.pattern import Filled, Making, Pattern
from celery_outbox.many.shown import shower
from celery_outbox.message import Alike

#: Messages that are stored in one statement, and the most bytes of their bodies.
PORTION: Final = 1000
MAX_BYTES: Final = 4_194_304

#: Positional and named arguments, as a call has them.
Call = tuple[Any, Any]


def send_many(
    app: Any, task: Any, calls: Iterable[tuple[Any, ...]], options: dict[str, Any]
) -> TaskIds:
    """Send `task`, once for each of `calls`. See `Outbox.send_many`."""
    sending = _Sending(app, _own(app, task), options)
    try:
        for number, call in enumerate(calls):
            sending.send(*_arguments(call, number))
    finally:  # what was sent before an error is stored, as by a loop
        sending.hand_over()
    return sending.ids


class _Sending:
    """One call of send_many."""

    def __init__(self, app: Any, task: Any, options: dict[str, Any]) -> None:
        self.ids = TaskIds()
        self._app = app
        self._task = task
        self._options = options
        self._making = _making(app, task, options)
        #: What the portion follows, once it is learned, and how that is stored.
        self._pattern: Pattern | None = None
        self._store: Callable[[Alike], object]
        self._filled: list[Filled] = []
        self._bytes = 0
        #: What is learned of the first message of a portion, to compare the second with.
        self._first: Pattern | None = None
        self._trail: Any = None

    def send(self, args: Any, kwargs: Any) -> None:
        """Send one task."""
        if self._pattern is None:
            self._learn(args, kwargs)
            return
        filled = self._fill(self._pattern, args, kwargs)
        if filled is None:
            self.hand_over()
            self._send(args, kwargs)
            return
        self._filled.append(filled)
        self._bytes += len(filled.body)
        if len(self._filled) >= PORTION or self._bytes >= MAX_BYTES:
            self.hand_over()

    def hand_over(self) -> None:
        """Store what was made of the portion, and learn anew for the next one."""
        pattern, self._pattern, self._first = self._pattern, None, None
        taken, self._filled, self._bytes = self._filled, [], 0
        if pattern is None or not taken:
            return
        self._store(Alike(pattern.like, *(list(column) for column in zip(*taken, strict=True))))
        for each in taken:
            self.ids.add(each.message_id)
            if self._trail is not None:
                self._trail.add_trail(self._result(each.message_id))

    def _fill(self, pattern: Pattern, args: Any, kwargs: Any) -> Filled | None:
        if not isinstance(self._task, str) and self._task.typing:
            self._task.__header__(*args, **kwargs)  # raises TypeError, as the task would
        try:
            return pattern.fill(uuid(), args, kwargs)
        except Exception:  # the long way raises it again, as Celery and the outbox word it
            return None

    def _learn(self, args: Any, kwargs: Any) -> None:
        """Send the long way; the second time, follow that if it is like the first."""
        if self._making is None or not shortcut.is_open(self._app, self._task, self._options):
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
            self._pattern, self._store = pattern, noted[0].store
            follows = self._options.get("add_to_parent", True)
            self._trail = self._app.current_worker_task if follows else None
        self._first = pattern

    def _send(self, args: Any, kwargs: Any) -> None:
        """Send a task the long way."""
        if isinstance(self._task, str):
            result = self._app.send_task(self._task, args, kwargs, **self._options)
        else:
            result = self._task.apply_async(args, kwargs, **self._options)
        if self._options.get("dedup_key") is None:
            self.ids.add(result.id)
        else:
            self.ids.add_result(result)

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
