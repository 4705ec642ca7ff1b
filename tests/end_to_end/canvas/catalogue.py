"""All shapes by name."""

from typing import Final

from tests.end_to_end.canvas.changes import CHANGES
from tests.end_to_end.canvas.failures import FAILURES
from tests.end_to_end.canvas.shape import Shape
from tests.end_to_end.canvas.successes import SUCCESSES

CATALOGUE: Final[dict[str, Shape]] = {**SUCCESSES, **FAILURES, **CHANGES}
