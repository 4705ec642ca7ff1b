"""Hides what may not be shown of arguments, headers and bodies, with a function of yours.

It gets the task's name, the part (`args`, `kwargs`, `headers`, `properties`, `declare` or `body`)
and the text, whole and readable, and returns what is shown instead. Text that was cut before, and
text that is no JSON where it should be, it could not judge: such text is not shown, nor is any on
which it fails.
"""

import json
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from outbox_console.errors import SettingsError

Mask = Callable[[str, str, str], str]

FAILED: Final = "(not shown: the mask has failed)"
CUT: Final = "(not shown: it was cut, and the mask has to see the whole)"
UNREADABLE: Final = "(not shown: it is no JSON, or too large, so that the mask cannot read it)"
BYTES: Final = "(not shown: bytes, which the mask cannot read)"
#: Celery's mark in a repr that it has cut; and how much of one `outbox.enqueue` keeps.
_DOTS: Final = "..."
_MAX_REPR: Final = 1024
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


def masked_repr(
    mask: Mask | None, task: str, part: str, text: str | None, longest: int = _MAX_REPR
) -> str | None:
    """What is shown of arguments as Celery renders them, of which at most `longest` were kept."""
    if mask is None or text is None:
        return text
    return CUT if _is_cut(text, longest) else _masked(mask, task, part, text)


def masked_json(mask: Mask, task: str, part: str, text: str | None) -> str:
    """What is shown of JSON, laid out in lines; None is what is no text at all."""
    try:
        read = json.loads(text or "")
        laid_out = json.dumps(_readable(read), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return UNREADABLE
    return _masked(mask, task, part, laid_out)


def _masked(mask: Mask, task: str, part: str, text: str) -> str:
    """Nothing else of the text leaves this function."""
    try:
        shown = mask(task, part, text)
    except Exception as error:
        _log.error("the mask has failed: %s", type(error).__name__)
        return FAILED
    return shown if isinstance(shown, str) else FAILED


def _readable(value: Any, name: str = "") -> Any:
    """The same without what only looks as if it could be judged: cut reprs, and encoded bytes."""
    if isinstance(value, dict):
        if value.get("__type__") == "base64":  # kombu's, of bytes that are no text
            return BYTES
        return {key: _readable(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_readable(each) for each in value]
    if name in ("argsrepr", "kwargsrepr") and isinstance(value, str):
        return CUT if _is_cut(value, _MAX_REPR) else value
    return value


def _is_cut(text: str, longest: int) -> bool:
    return len(text) >= longest or _DOTS in text
