"""Lines that fit a terminal: broken between words, and what follows is indented. Pure.

A word that is longer than the line, such as an id, stays whole wherever people may copy it.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

#: Between two fields on a line.
GAP: Final = "   "
INDENT: Final = "  "
#: Names that stand for all of them.
MAX_NAMES: Final = 5


def some_of(names: Sequence[str]) -> str:
    """The first of them, and how many more there are.

    >>> some_of(("app/a", "app/b"))
    'app/a, app/b'
    >>> some_of("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def wrapped(text: str, width: int, indent: int = 0) -> str:
    """The text in lines of at most `width`; all but the first are indented by so much."""
    return textwrap.fill(
        text,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )


def stacked(columns: Sequence[str], cells: Sequence[str], width: int) -> str:
    """The fields of a row one after another, as many on a line as fit; empty ones are left out.

    >>> print(stacked(("id", "task", "last_error"), ("7", "shop.bill", "no queue is bound"), 40))
    id: 7   task: shop.bill
      last_error: no queue is bound
    """
    lines: list[str] = []
    for name, cell in zip(columns, cells, strict=True):
        if not cell:
            continue
        field = f"{name}: {cell}"
        if lines and len(lines[-1]) + len(GAP) + len(field) <= width:
            lines[-1] += GAP + field
        else:
            start = INDENT if lines else ""
            lines += wrapped(start + field, width, 2 * len(INDENT)).split("\n")
    return "\n".join(lines)
