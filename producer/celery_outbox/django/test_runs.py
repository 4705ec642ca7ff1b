"""Test runs are left alone by our checks: their settings are not those that send.

`manage.py test` runs all checks, and an error ends it. Tests may well have SQLite, a broker in
memory or another app; a start with the settings that send tells what is wrong with those.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core import mail  # type: ignore[import-untyped]  # Django ships no types


def left_alone(check: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Have a check find nothing where Django has prepared the process for tests."""

    @wraps(check)
    def quiet(*args: Any, **kwargs: Any) -> list[Any]:
        # What Django gives the modules of a test run, whichever runner it is.
        return [] if hasattr(mail, "outbox") else check(*args, **kwargs)

    return quiet
