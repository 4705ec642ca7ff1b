"""Hides what may not be shown of arguments, headers and bodies, with a function of yours.

It gets the task's name, the part (`args`, `kwargs`, `headers`, `properties`, `declare` or `body`)
and the text, and returns what is shown instead. Where it fails nothing is shown.
"""

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Final

from outbox_console.errors import SettingsError

Mask = Callable[[str, str, str], str]

FAILED: Final = "(not shown: the mask has failed)"
_log: Final = logging.getLogger(__name__)


def load(place: str) -> Mask:
    """The function of `package.module:function`; raises SettingsError."""
    module, _, name = place.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"OUTBOX_CONSOLE_MASK: {place!r} cannot be imported ({error}): "
            "give package.module:function"
        ) from error
    if not callable(found):
        raise SettingsError(f"OUTBOX_CONSOLE_MASK: {place!r} is no function")
    return found  # type: ignore[no-any-return]


def masked(mask: Mask | None, task: str, part: str, text: str | None) -> str | None:
    """What is shown of a text; nothing else of it leaves this function."""
    if mask is None or text is None:
        return text
    try:
        shown = mask(task, part, text)
    except Exception as error:
        _log.error("the mask has failed: %s", type(error).__name__)
        return FAILED
    return shown if isinstance(shown, str) else FAILED
