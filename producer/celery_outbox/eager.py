"""Eager tasks (`task_always_eager`) sent in a `transaction()` block run once it has committed.

So they do what a worker would: they find what the block has stored, wait for no lock that it holds,
and do not run after a rollback. Who asks for a result sooner gets it at once, as in plain Celery.
"""

import sys
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Final

from celery import states
from celery.local import Proxy
from celery.result import EagerResult, denied_join_result
from kombu.utils.uuid import uuid
from vine import promise

from celery_outbox.block import Held, Using, holder


def _block_for(what: Any) -> Using[Any] | None:
    """Return the block that an eager task or canvas waits for; its app has an outbox."""
    app = what.app
    if not app.conf.task_always_eager or getattr(app, "outbox", None) is None:
        return None
    return holder()


#: What of a result is not known before its task has run.
_KNOWN_LATER: Final = ("_result", "_state", "_traceback", "_name")


class HeldResult(EagerResult):  # type: ignore[type-arg]  # Celery 5.4 takes none
    """The result of a task that runs as its result is asked for, at the latest after the commit."""

    def __init__(self, task_id: str, held: Held) -> None:
        self.id = task_id
        self.on_ready = promise()
        self._held = held

    def __getattr__(self, name: str) -> Any:
        """Run the task now, for what is not known before."""
        if name not in _KNOWN_LATER:
            raise AttributeError(name)
        return vars(self._held.value())[name]

    def be(self, done: Any) -> None:
        """Become what the task came to, and tell those who wait for that."""
        vars(self).update({name: vars(done)[name] for name in _KNOWN_LATER})
        self.on_ready(self)


def holding(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have Task.apply() hold back what was sent; called by others, it runs at once as ever.

    Celery's apply_async has checked and serialised the arguments by then. It is known by its name,
    for to replace it would have everybody believe that sends are not Celery's own.
    """

    @wraps(original)
    def apply(self: Any, *args: Any, **options: Any) -> Any:
        sent = sys._getframe(1).f_code.co_name == "apply_async"
        block = _block_for(self) if sent else None
        if block is None or block.held is None:
            return original(self, *args, **options)
        task_id = options["task_id"]

        def run() -> Any:
            with denied_join_result():
                done = original(self, *args, **options)
            result.be(done)
            return done

        held = Held(run, EagerResult(task_id, None, states.PENDING))
        result = HeldResult(task_id, held)
        block.held.append(held)
        return result

    return apply


def holding_a_canvas(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have a chain, group or chord held back whole; its result is made as it is looked at."""

    @wraps(original)
    def apply_async(self: Any, *args: Any, **options: Any) -> Any:
        block = _block_for(self)
        if block is None or block.held is None:
            return original(self, *args, **options)
        held = Held(
            partial(original, self, *args, **options), EagerResult(uuid(), None, states.PENDING)
        )
        block.held.append(held)
        return Proxy(held.value)

    return apply_async
