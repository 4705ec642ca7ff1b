"""Tells a retry that ends its run from one beside it: `self.retry(throw=False)` is another run.

A retry has the id of the message it repeats. Where its run goes on and commits, that id is taken,
and the retry would count as a duplicate: so it is sent with the number of its run.
"""

from functools import wraps
from typing import Any

#: The message header with the number of the run, from 1; the first run has none.
HEADER = "celery_inbox_run"
#: How many runs this attempt has begun beside itself.
_BEGUN = "_celery_inbox_begun"


def number_runs(task: Any) -> None:
    """Have the task's `retry` say which run it begins, once for the process."""
    if "retry" in vars(task):
        return

    @wraps(type(task).retry)
    def retry(*args: Any, **options: Any) -> Any:
        request = task.request
        run = number_of(request)
        if _goes_on(args, options) and not request.is_eager:
            run = _another(request, run)
        if run:
            given = {**(request.headers or {}), **(options.pop("headers", None) or {})}
            options["headers"] = {**given, HEADER: run}
        return type(task).retry(task, *args, **options)

    vars(task)["retry"] = retry


def begin_attempt(request: Any) -> None:
    """The body begins anew: what it sends has the numbers that an earlier attempt has given."""
    setattr(request, _BEGUN, 0)


def number_of(request: Any) -> int | str:
    """Which run of its message this delivery is; 0 for the first."""
    number = request.get(HEADER)
    return number if isinstance(number, int | str) else 0


def _another(request: Any, run: int | str) -> int | str:
    """The number of the next run that this one begins: 1, then 1.2, 1.3; of 1.2 it is 1.2.1."""
    begun = getattr(request, _BEGUN, 0) + 1
    setattr(request, _BEGUN, begun)
    if isinstance(run, str):
        return f"{run}.{begun}"
    return run + 1 if begun == 1 else f"{run + 1}.{begun}"


def _goes_on(args: tuple[Any, ...], options: dict[str, Any]) -> bool:
    """Whether retry() returns to the body: `throw` is its fourth argument."""
    return not (args[3] if len(args) > 3 else options.get("throw", True))
