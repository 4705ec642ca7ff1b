"""Results of `@app.task(pydantic=True)`: models, which Celery dumps after the body has returned.

The inbox stores what Celery makes of them, so that a duplicate is answered with the same.
"""

import inspect
import sys
from collections.abc import Callable
from types import NoneType
from typing import Any, get_args, get_type_hints


def dumped(task: Any, run: Callable[..., Any], value: Any) -> Any:
    """What Celery will dump the result of `run` to: the value itself if it will not."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(value, pydantic.BaseModel):
        return value
    # Celery's wrapper is around ours if, and only if, the task is one of pydantic's.
    if getattr(task.run, "__wrapped__", None) is not run or not _as_promised(run, value):
        return value
    options = inspect.getclosurevars(task.run).nonlocals.get("dump_kwargs") or {}
    return value.model_dump(**{"mode": "json", **options})


def _as_promised(run: Callable[..., Any], value: object) -> bool:
    """Whether it is of the class that the body is annotated with: others Celery leaves alone."""
    try:
        promised = get_type_hints(run).get("return")
    except (NameError, AttributeError, TypeError):
        promised = inspect.signature(run).return_annotation
    kinds = [kind for kind in get_args(promised) or (promised,) if kind is not NoneType]
    return all(isinstance(kind, type) and isinstance(value, kind) for kind in kinds)
