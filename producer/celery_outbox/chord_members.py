"""What a task adds to its chord is counted there only if it was sent.

Celery counts it before it is sent: sent first, it could end before it was counted, and the chord
with it. Whoever is not sent, as the outbox's database is away or its arguments cannot be stored,
would be waited for for ever. So a send that fails takes its count back; the task that adds has not
ended by then, and the chord waits for that one.
"""

import logging
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

from celery.result import EagerResult

from celery_outbox.outbox import Outbox

logger = logging.getLogger(__name__)


class Member:
    """A task that was added to the chord of another, as the result backend has it."""

    def __init__(self, task: Any, signature: Any) -> None:
        self._backend, self._group, self._signature = task.backend, task.request.group, signature
        self._counted = True

    def count(self) -> None:
        """Have it counted, once."""
        if not self._counted:
            self._backend.add_to_chord(self._group, self._signature.freeze())
            self._counted = True

    def take_back(self) -> None:
        """Have it counted no more. Raises nothing: there is an error that somebody is to see."""
        try:
            if self._counted:
                _uncount(self._backend, self._group)
            self._counted = False
        except Exception as error:
            logger.error(
                "%s was added to a chord and counted there, but not sent: the chord waits for it"
                " (%s)",
                self._signature.task,
                type(error).__name__,
            )


def _uncount(backend: Any, group: str) -> None:
    """Undo what add_to_chord() of Redis' backend does, the only one of Celery's that has it."""
    redis: Any = import_module("celery.backends.redis")  # loaded already, where it is in use
    if not isinstance(backend, redis.RedisBackend):
        raise NotImplementedError
    backend.client.decr(backend.get_key_for_group(group, ".t"), 1)


def counting_what_is_sent(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have Task.add_to_chord() count what is sent, and nothing else."""

    @wraps(original)
    def add_to_chord(self: Any, sig: Any, lazy: bool = False) -> Any:
        if not isinstance(getattr(self.app, "outbox", None), Outbox):
            return original(self, sig, lazy=lazy)
        added = original(self, sig, lazy=True)  # which counts it
        added.member = Member(self, added)
        return added if lazy else added.delay()

    return add_to_chord


def taking_the_count_back(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have a signature that was added to a chord take its count back if it is not sent.

    One that is run where it is sent (`task_always_eager`) does not tell the chord either.
    """

    @wraps(original)
    def apply_async(self: Any, *args: Any, **options: Any) -> Any:
        member: Member | None = vars(self).get("member")
        if member is None:
            return original(self, *args, **options)
        member.count()
        try:
            result = original(self, *args, **options)
        except BaseException:
            member.take_back()
            raise
        if isinstance(result, EagerResult):
            member.take_back()
        return result

    return apply_async
