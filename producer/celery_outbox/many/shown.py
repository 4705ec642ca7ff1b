"""Arguments as Celery shows them in `argsrepr`, without its machinery where they are plain."""

from collections.abc import Callable
from typing import Any, Final

from celery.utils.saferepr import saferepr

Show = Callable[[Any], str]

#: How much is shown of containers within containers; newer versions of Celery have a setting.
MAX_LEVELS: Final = 3
#: Shown as `str()` has them.
NUMBERS: Final = frozenset({int, float, bool, type(None)})


def shower(amqp: Any) -> Show:
    """Return a function that shows positional or named arguments as `amqp` does in a message."""
    most = amqp.argsrepr_maxsize
    levels = getattr(amqp.app.conf, "task_repr_maxlevels", MAX_LEVELS)

    def show(arguments: Any) -> str:
        text = _plain(arguments)
        # What fits is shown whole. Where it does not, Celery knows what to leave out.
        if text is None or len(text) >= most:
            return str(saferepr(arguments, most, maxlevels=levels))
        return text

    return show if most and levels else lambda arguments: str(saferepr(arguments, most, levels))


def _plain(arguments: Any) -> str | None:
    """Show a tuple or a dictionary of numbers and text; None for anything else."""
    if type(arguments) is tuple:
        shown = [_value(each) for each in arguments]
        if None in shown:
            return None
        return f"({shown[0]},)" if len(shown) == 1 else f"({', '.join(shown)})"  # type: ignore[arg-type]  # no None is left
    if type(arguments) is not dict:
        return None
    pairs = []
    for name, each in arguments.items():
        if type(name) is not str or (value := _value(each)) is None:
            return None
        pairs.append(f"{_quoted(name)}: {value}")
    return f"{{{', '.join(pairs)}}}"


def _value(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return _quoted(value)
    return str(value) if kind in NUMBERS else None


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("'", "\\'"))
