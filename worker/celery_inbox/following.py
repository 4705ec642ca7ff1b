"""Gives what follows a task the same ids whenever the task is delivered.

Celery sends callbacks and errbacks anew each time a task ends, and makes up an id for each unless
it has one: chains and chords are given theirs by the sender, callbacks are not. Derived from the
parent's id and their place, they are known again when the parent's duplicate has sent them again.
"""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID, uuid5

_NAMESPACE = UUID("8c0f4c1e-6f0b-5b7e-9d7a-3f1f6f1f2b64")

#: Where a canvas keeps its signatures, by the name that Celery gives its kind.
_MEMBERS = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}


def keep_ids(request: Any) -> None:
    """Name all that would be sent when this delivery ends, where the sender has not."""
    for place in ("callbacks", "errbacks"):
        for number, signature in enumerate(_listed(getattr(request, place, None))):
            for path, task in _tasks(signature, f"{place}/{number}"):
                options = task.setdefault("options", {})
                if not options.get("task_id"):
                    options["task_id"] = str(uuid5(_NAMESPACE, f"{request.id}/{path}"))


def _tasks(signature: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every single task of a signature that a message brought, with its place in it."""
    members = _MEMBERS.get(signature.get("subtask_type") or "")
    if members is None:
        yield path, signature
        return
    for name in members:
        for number, member in enumerate(_listed(signature["kwargs"].get(name))):
            yield from _tasks(member, f"{path}/{name}/{number}")


def _listed(value: Any) -> Iterable[Any]:
    """The signatures of a list, or the one there is: a chord's header may be a group."""
    if not value:
        return ()
    return (value,) if isinstance(value, dict) else value
