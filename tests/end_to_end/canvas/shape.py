"""What a shape is: how it is made, and what plain Celery makes of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.end_to_end.canvas.steps import Steps


@dataclass(frozen=True, slots=True)
class Shape:
    """One canvas."""

    make: Callable[[Steps], Any]
    #: What `get(propagate=False)` returns; of an error its repr, ids in it given as <label>.
    value: Any
    #: The labels of all that runs, one for each attempt, in the order of the alphabet.
    ran: str
    #: What it is sent with.
    args: tuple[Any, ...] = ()
