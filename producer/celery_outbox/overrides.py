"""The methods of Celery's own classes that must know of an outbox, whoever derives from them.

Without one they do what they did.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, wraps
from typing import Any, Final

from celery import Signature, Task, chord, group
from celery.beat import Scheduler
from celery.canvas import _chain, chunks
from celery.exceptions import Reject

from celery_outbox.beat import counting_when_sent, pausing
from celery_outbox.chord_members import counting_what_is_sent, taking_the_count_back
from celery_outbox.eager import holding, holding_a_canvas
from celery_outbox.outbox import Outbox
from celery_outbox.worker import continuing_canvas, in_errbacks

#: The options of a send that are ours, and none of Celery's.
OPTIONS: Final = frozenset({"outbox", "ordering_key", "dedup_key"})


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
        outbox = getattr(self.app, "outbox", None)
        target = options.pop("outbox", None)
        if target is None:
            target = self.options.get("outbox")  # that of set()
        if target is None or not isinstance(outbox, Outbox):
            return original(self, *args, **options)
        kept = {name: value for name, value in self.options.items() if name != "outbox"}
        bare = type(self).from_dict({**self, "options": kept}, app=self._app)
        with outbox.using(target):
            return original(bare, *args, **options)

    return apply_async


def handing_on(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have chunks hand on options of ours: Celery drops all that they were given by `set()`."""

    @wraps(original)
    def as_group(self: Any) -> Any:
        ours = {name: value for name, value in self.options.items() if name in OPTIONS}
        return original(self).set(**ours)

    return as_group


def continuing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have everything sent by a signature that follows a task known as the continuation it is.

    Celery gives the parent explicitly for what follows a task, and for nothing else; but a chain
    does not hand it on to its first task.
    """

    @wraps(original)
    def apply_async(self: Any, *args: Any, **options: Any) -> Any:
        if options.get("parent_id") is None:
            return original(self, *args, **options)
        with continuing_canvas():
            return original(self, *args, **options)

    return apply_async


def continuing_as_errback(original: Callable[..., Any]) -> Callable[..., Any]:
    """Have a chain that is an errback known as a continuation: Celery calls it without a parent."""

    @wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with continuing_canvas() if in_errbacks() else nullcontext():
            return original(self, *args, **kwargs)

    return call


def producing_for_beat(original: Any) -> Any:
    """Have a Scheduler, by whomever it is run, send with the app's outbox and not connect."""

    def producer(self: Any) -> Any:
        outbox = getattr(self.app, "outbox", None)
        return outbox.producer if isinstance(outbox, Outbox) else original.__get__(self)

    return cached_property(producer)


def install() -> None:
    """Override them, once for the process."""
    task: Any = Task
    scheduler: Any = Scheduler
    split: Any = chunks
    kinds: tuple[Any, ...] = (Signature, _chain, group, chord)
    task.retry = passing_rejections(Task.retry)
    task.apply = holding(Task.apply)
    task.add_to_chord = counting_what_is_sent(Task.add_to_chord)
    scheduler.producer = producing_for_beat(vars(Scheduler)["producer"])
    scheduler.producer.__set_name__(Scheduler, "producer")
    scheduler.apply_async = counting_when_sent(Scheduler.apply_async)
    scheduler.tick = pausing(Scheduler.tick)
    split.group = handing_on(chunks.group)
    for kind in kinds[1:]:
        kind.apply_async = holding_a_canvas(kind.apply_async)
    kinds[-1].apply_async = opening_a_block(chord.apply_async)
    kinds[1].__call__ = continuing_as_errback(_chain.__call__)
    for kind in kinds:
        kind.apply_async = taking_the_count_back(continuing(kind.apply_async))
