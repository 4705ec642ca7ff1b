"""Eager tasks (`task_always_eager`) sent in a `transaction()` block run once it has committed.

So they do what a worker would: they find what the block has stored, wait for no lock that it holds,
get the arguments they were sent with, and do not run after a rollback. Their ids are known at once;
who asks for a result gets it at once as well, as in plain Celery.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, cast

import celery.app.task
from celery import Signature, chord, group
from celery.result import EagerResult, denied_join_result

from celery_outbox.block import Using, holder
from celery_outbox.eager_canvas import frozen, promised, single_results
from celery_outbox.eager_result import HeldResult, expecting, tell
from celery_outbox.held import Held


def _block_for(what: Any, options: Mapping[str, Any]) -> Using[Any] | None:
    """Return the block that an eager task or canvas waits for; its app has an outbox."""
    app = what.app
    if not app.conf.task_always_eager or getattr(app, "outbox", None) is None:
        return None
    target = options.get("outbox")
    if target is None and isinstance(what, Signature):
        target = what.options.get("outbox")
    return holder(target)


def holding(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have Task.apply() hold back what was sent; called by others, it runs at once as ever.

    It is called by Celery's apply_async, which has checked and serialised the arguments. That one
    is not replaced: whoever asks whether a task's sends are Celery's own would be told no.
    """

    @wraps(original)
    def apply(self: Any, *args: Any, **options: Any) -> Any:
        task_id = options.get("task_id")
        block = _block_for(self, options)
        if block is None or block.held is None or task_id is None or not _is_sent(self):
            return tell(task_id, partial(original, self, *args, **options))
        result = HeldResult(task_id, self.name)
        kept = frozen(options, deep=False)

        def run() -> None:
            with expecting([result]), denied_join_result():
                tell(task_id, partial(original, self, *args, **kept))

        result.held = Held(self.name, run, result.be_dropped)
        block.held.append(result.held)
        return result

    _runs.add(cast(FunctionType, apply).__code__)
    return apply


#: The code that runs a task: who sent that is told by what called this, and nothing further out.
_runs: Final[set[CodeType]] = set()


def _is_sent(task: Any) -> bool:
    """Tell whether it is Celery's own apply_async of this task that is about to run it.

    Functions of agents that watch an application may be in between.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code not in _runs:
        if frame.f_code.co_name == "apply_async" and frame.f_globals is vars(celery.app.task):
            return frame.f_locals.get("self") is task
        frame = frame.f_back
    return False


def holding_a_canvas(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have a chain, group or chord held back whole, as it is when it is sent."""

    @wraps(original)
    def apply_async(self: Any, *args: Any, **options: Any) -> Any:
        block = _block_for(self, options)
        if block is None or block.held is None or _is_refused(self, options):
            return original(self, *args, **options)
        canvas, args = frozen(self), frozen(args)
        kept = {name: frozen(each, deep=name == "kwargs") for name, each in options.items()}
        result = _promise(canvas, args, kept)
        if result is None:  # an empty chain
            return original(self, *args, **options)
        results = single_results(result)

        def run() -> None:
            with expecting(results):
                done = original(canvas, *args, **kept)
            if isinstance(result, HeldResult) and isinstance(done, EagerResult):
                result.be(done)  # of a chain that ended early, the last that ran

        def drop(reason: str) -> None:
            for each in results:
                each.be_dropped(reason)

        held = Held(f"A {canvas.subtask_type}", run, drop)
        for each in results:
            each.held = held
        block.held.append(held)
        return result

    return apply_async


def _is_refused(canvas: Any, options: Mapping[str, Any]) -> bool:
    """Tell whether Celery refuses what a canvas is sent with."""
    return isinstance(canvas, group) and any(
        options.get(name) is not None for name in ("link", "link_error")
    )


def _promise(canvas: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the result of a canvas about to be held, whose id is taken out of its options."""
    task_id = options.pop("task_id", None)
    if isinstance(canvas, chord):
        named = options.get("kwargs") or (args[1] if len(args) > 1 else None) or {}
        return promised(named.get("body") or canvas.body, task_id)
    return promised(canvas, task_id)
