"""Results of eager tasks that are still to run: they are asked for, or told what they came to."""

import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from celery import states
from celery.exceptions import TaskRevokedError
from celery.result import EagerResult
from vine import promise

from celery_outbox.held import Held

#: What of a result is not known before its task has run, and what it seems while it runs.
_KNOWN_LATER: Final = {"_result": None, "_state": states.PENDING, "_traceback": None}


class HeldResult(EagerResult):  # type: ignore[type-arg]  # Celery 5.4 takes none
    """The result of a task that runs as its result is asked for, at the latest after the commit."""

    #: What its task runs with.
    held: Held

    def __init__(self, task_id: str, name: str) -> None:
        self.id = task_id
        self._name = name
        self.on_ready = promise()

    def __getattr__(self, name: str) -> Any:
        """Run the task now, for what is not known before."""
        if name not in _KNOWN_LATER or "held" not in vars(self):
            raise AttributeError(name)
        self.held.run()
        return vars(self).get(name, _KNOWN_LATER[name])

    @property
    def name(self) -> str:
        """The name of the task."""
        return self._name

    def get(self, *args: Any, **options: Any) -> Any:
        """Return what the task came to. Raises its error, of which the block then says nothing."""
        try:
            return super().get(*args, **options)
        finally:
            self.held.take_error()

    wait = get

    def revoke(self, *args: Any, **options: Any) -> None:
        """Have the task not run, if it has not; else as Celery does."""
        self.held.drop("its result was revoked")
        super().revoke(*args, **options)

    @property
    def is_known(self) -> bool:
        """Whether it is known what the task came to."""
        return "_state" in vars(self)

    def be(self, done: Any) -> None:
        """Become what the task came to, and tell those who wait for that."""
        if not self.is_known:
            self._become(vars(done)["_result"], vars(done)["_state"], vars(done)["_traceback"])
            self.on_ready(self)

    def be_failed(self, error: Exception) -> None:
        """Become the result of a task that raised."""
        if not self.is_known:
            text = "".join(traceback.format_exception(error))
            self._become(error, states.FAILURE, text)
            self.on_ready(self)

    def be_dropped(self, reason: str) -> None:
        """Become the result of a task that is not going to run, which nobody waits for."""
        if not self.is_known:
            error = TaskRevokedError(f"{self._name} did not run: {reason}")
            self._become(error, states.REVOKED, None)

    def _become(self, result: Any, state: str, trace: Any) -> None:
        vars(self).update({"_result": result, "_traceback": trace, "_state": state})

    def __reduce__(self) -> Any:
        """Copy and pickle what the task came to."""
        return EagerResult, self.__reduce_args__()


#: Results of what runs now, by the ids of its tasks.
_expected: Final[ContextVar[dict[str, HeldResult] | None]] = ContextVar(
    "celery_outbox_expected", default=None
)


@contextmanager
def expecting(results: Sequence[HeldResult]) -> Iterator[None]:
    """Have `results` told what their tasks come to that run inside; an error fails the others."""
    token = _expected.set({result.id: result for result in results})
    try:
        yield
    except Exception as error:
        for result in results:
            result.be_failed(error)
        raise
    finally:
        _expected.reset(token)


def tell(task_id: str | None, run: Any) -> Any:
    """Run a task, and tell its result what it came to, if that is expected."""
    expected = _expected.get()
    result = expected.pop(task_id, None) if expected and task_id else None
    if result is None:
        return run()
    try:
        done = run()
    except Exception as error:
        result.be_failed(error)
        raise
    result.be(done)
    return done
