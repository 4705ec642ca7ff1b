"""A canvas that waits to be run eagerly: a copy as it was sent, and the results it will have.

The results are those of Celery's eager canvas, with each task's id given out beforehand.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from celery import Signature, chord, group
from celery.canvas import _chain, maybe_signature
from celery.result import GroupResult
from kombu.utils.uuid import uuid

from celery_outbox.eager_result import HeldResult

#: Options are kept as they are: among them are connections, queues and the like.
OPTIONS: Final = "options"


def frozen(value: Any, *, deep: bool = True) -> Any:
    """Return a copy that nobody else can change, generators run out; `deep` copies objects, too.

    What cannot be copied stays what it is.
    """
    if isinstance(value, Signature):
        copy = dict.__new__(type(value))
        vars(copy).update(vars(value))
        for name, part in value.items():
            dict.__setitem__(copy, name, frozen(part, deep=name != OPTIONS))
        return copy
    if isinstance(value, list):
        return [frozen(each, deep=deep) for each in value]
    if type(value) is tuple:
        return tuple(frozen(each, deep=deep) for each in value)
    if type(value) is dict:
        return {name: frozen(each, deep=deep) for name, each in value.items()}
    try:
        return deepcopy(value) if deep else value
    except Exception:  # whatever a class says that is not to be copied
        return value


def promised(canvas: Any, task_id: str | None = None) -> Any:
    """Return the result that a frozen canvas will have: None of an empty chain.

    Gives each task in it an id, and the one whose result it is `task_id`, if that is given.
    """
    if isinstance(canvas, group):
        group_id = task_id or canvas.options.get("task_id") or uuid()
        canvas.options["task_id"] = group_id
        results = [promised(each) for each in _members(canvas)]
        return canvas.app.GroupResult(group_id, results)
    if isinstance(canvas, _chain):
        return _promised_chain(canvas, task_id or canvas.options.pop("task_id", None))
    if isinstance(canvas, chord):
        return promised(canvas.body, task_id)
    canvas.options["task_id"] = task_id or canvas.options.get("task_id") or uuid()
    return HeldResult(canvas.options["task_id"], canvas.task)


def _promised_chain(canvas: Any, task_id: str | None) -> Any:
    steps = _signatures(canvas)
    filled = [step for step in steps if not (isinstance(step, group) and not step.tasks)]
    last = None
    for step in filled or steps[-1:]:
        result = promised(step, task_id if step is (filled or steps)[-1] else None)
        result.parent, last = last, result
    return last


def _members(canvas: Any) -> Iterator[Any]:
    """Yield the tasks of a group, those of groups in it among them."""
    for each in _signatures(canvas):
        if isinstance(each, group):
            yield from _members(each)
        elif not isinstance(each, _chain) or each.tasks:
            yield each


def _signatures(canvas: Any) -> list[Any]:
    """Return the tasks of a group or chain, made signatures where they were serialised."""
    canvas.tasks = [maybe_signature(each, app=canvas.app) for each in canvas.tasks]
    found: list[Any] = canvas.tasks
    return found


def single_results(result: Any) -> list[HeldResult]:
    """Return the results of single tasks among a canvas' result, parents included."""
    found: list[HeldResult] = []
    left = [result]
    while left:
        each = left.pop()
        if each is None:
            continue
        left.append(each.parent)
        if isinstance(each, GroupResult):
            left += each.results or ()
        else:
            found.append(each)
    return found
