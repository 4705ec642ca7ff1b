"""The tasks that every shape is made of. They add up what they get, whatever its nesting.

Each has a label of its own within its shape, and notes under it what it got and gave.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import signature

from tests.end_to_end.canvas.journal import Journal, Note

Body = TypeVar("Body", bound=Callable[..., Any])


def _same(body: Body) -> Body:
    return body


def numbers(value: Any) -> Iterable[int]:
    """Every number in it: groups yield lists, and errbacks get ids."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int):
        yield value


def register(app: Any, journal: Journal, once: Callable[[Body], Body] = _same) -> None:
    """Give an app the tasks. `once` is put around the bodies of those that know their task."""

    def note(task: Any, run: str, label: str, got: Any, gave: Any) -> None:
        request = task.request
        stamps = {name: request.stamps[name] for name in sorted(request.stamps or ())}
        journal.write(run, Note(label, request.retries, got, gave, request.id, stamps))

    def after_the_last_attempt(task: Any) -> None:
        # Celery sends a retry before it stores that there is one: its state may come too late, and
        # replace that of the retry.
        if task.request.retries:
            journal.await_stored(task.request.id, task.request.retries - 1)

    def task(name: str) -> Callable[[Any], Any]:
        options = {"name": f"canvas.{name}", "bind": True, "shared": False}
        return lambda body: app.task(**options)(once(body))

    @task("step")
    def step(self: Any, *got: Any, run: str, label: str, plus: int = 0) -> int:
        """The sum of everything it gets, and a number of its own."""
        gave = sum(numbers(got)) + plus
        note(self, run, label, got, gave)
        return gave

    @task("fail")
    def fail(self: Any, *got: Any, run: str, label: str) -> None:
        """Always raises."""
        note(self, run, label, got, None)
        raise ValueError(label)

    @task("stumble")
    def stumble(
        self: Any, *got: Any, run: str, label: str, plus: int, times: int, allowed: int
    ) -> int:
        """Retries itself so many times, or until no more is allowed."""
        after_the_last_attempt(self)
        stumbles = self.request.retries < times
        gave = sum(numbers(got)) + plus
        note(self, run, label, got, None if stumbles else gave)
        if stumbles:
            raise self.retry(exc=ValueError(label), countdown=0, max_retries=allowed)
        return gave

    @task("become")
    def become(self: Any, *got: Any, run: str, label: str, what: str) -> Any:
        """Replaces itself."""
        note(self, run, label, got, None)
        raise self.replace(signature(json.loads(what), app=self.app))

    @task("grow")
    def grow(self: Any, *got: Any, run: str, label: str, plus: int, what: str, times: int) -> int:
        """Adds a task to the chord that it is in, and retries itself so many times."""
        after_the_last_attempt(self)
        note(self, run, label, got, plus)
        self.add_to_chord(signature(json.loads(what), app=self.app))
        if self.request.retries < times:
            raise self.retry(countdown=0)
        return plus

    @task("told")
    def told(self: Any, failed: str = "", *, run: str, label: str) -> int:
        """An errback that is sent, and gets the id of what failed."""
        note(self, run, label, failed, 0)
        return 0

    def plain_task(name: str) -> Callable[[Any], Any]:
        return lambda body: app.task(name=f"canvas.{name}", shared=False)(body)

    @plain_task("heard")
    def heard(request: Any, error: Exception, trace: Any, *, run: str, label: str) -> None:
        """An errback that Celery calls where the task failed."""
        journal.write(run, Note(label, 0, repr(error), None, None, {}))

    @plain_task("add")
    def add(x: int, y: int) -> int:
        """What maps and chunks are made of, which give a task nothing but positions."""
        return x + y


@dataclass(frozen=True, slots=True)
class Steps:
    """Makes the signatures of one run of a shape."""

    app: Any
    run: str

    def __call__(self, label: str, plus: int = 0) -> Any:
        """A step that adds a number to what it gets."""
        return self._named("step", label, plus=plus)

    def alone(self, label: str, plus: int = 0) -> Any:
        """A step that takes nothing from what was before it."""
        return self(label, plus).set(immutable=True)

    def fails(self, label: str) -> Any:
        """One that raises."""
        return self._named("fail", label)

    def stumbles(self, label: str, plus: int, times: int, allowed: int = 9) -> Any:
        """One that retries itself."""
        return self._named("stumble", label, plus=plus, times=times, allowed=allowed)

    def becomes(self, label: str, what: Any) -> Any:
        """One that is replaced."""
        return self._named("become", label, what=json.dumps(what))

    def grows(self, label: str, plus: int, what: Any, times: int = 0) -> Any:
        """A member of a header that adds another one."""
        return self._named("grow", label, plus=plus, what=json.dumps(what), times=times)

    def told(self, label: str) -> Any:
        """An errback that is a message."""
        return self._named("told", label)

    def heard(self, label: str) -> Any:
        """An errback that is a call."""
        return self._named("heard", label)

    @property
    def add(self) -> Any:
        """A task with two positions."""
        return self.app.tasks["canvas.add"]

    def _named(self, name: str, label: str, **own: Any) -> Any:
        kwargs = {"run": self.run, "label": label, **own}
        return self.app.tasks[f"canvas.{name}"].s(**kwargs)
