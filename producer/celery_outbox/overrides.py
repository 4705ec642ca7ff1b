"""The two methods of Celery's own classes that must know of an outbox, whoever derives from them.

Without one they do what they did.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import Task, chord
from celery.exceptions import Reject

from celery_outbox.outbox import Outbox


def passing_rejections(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have Task.retry() hand on a Reject, of which it would make one that discards the task."""

    @wraps(original)
    def retry(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        except Reject as rejected:
            reason, *_ = rejected.args
            if isinstance(reason, Reject):
                raise reason from reason.__cause__
            raise

    return retry


def opening_a_block(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have `outbox=` of a chord be a block, not an option: Celery would give its body a copy."""

    @wraps(original)
    def apply_async(self: Any, *args: Any, **options: Any) -> Any:
        outbox, target = getattr(self.app, "outbox", None), options.get("outbox")
        if target is None or not isinstance(outbox, Outbox):
            return original(self, *args, **options)
        del options["outbox"]
        with outbox.using(target):
            return original(self, *args, **options)

    return apply_async


def install() -> None:
    """Override them, once for the process."""
    kinds: tuple[Any, Any] = Task, chord
    kinds[0].retry = passing_rejections(Task.retry)
    kinds[1].apply_async = opening_a_block(chord.apply_async)
