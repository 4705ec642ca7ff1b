"""What people and programs see: a table on a terminal, tab-separated lines in a pipe, or JSON.

Nothing that a row contains can move the cursor, colour the screen or forge a line.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from outbox_relay.cli.wrapping import INDENT, stacked, wrapped
from outbox_relay.operator.text import printable

#: Columns that are never wrapped, because people copy from them.
WHOLE: Final = ("id", "message_id")
#: Columns of sentences, which may be wrapped down to so many characters; others are never narrowed.
SENTENCES: Final = ("last_error",)
SENTENCE_WIDTH: Final = 40
#: Between two columns of a table.
GAP: Final = 2


def print_json(value: Any) -> None:
    """One JSON document on one line; times as ISO 8601."""
    text = json.dumps(value, default=_plain, ensure_ascii=False)
    # Half a surrogate pair, which JSON can hold and UTF-8 cannot, is printed as an escape.
    print(text.encode(errors="backslashreplace").decode(), flush=True)


def print_records(records: Iterable[Any], columns: Sequence[str]) -> None:
    """Dataclasses as a JSON array of objects with these keys."""
    chosen = [{key: value for key, value in asdict(r).items() if key in columns} for r in records]
    print_json(chosen)


def on_terminal() -> bool:
    """Whether people look at it while it is printed."""
    return sys.stdout.isatty()


def print_line(text: str, indent: int = len(INDENT)) -> None:
    """A sentence; on a terminal it breaks between words, and what follows is indented."""
    line = printable(text)
    print(wrapped(line, Console().width, indent) if on_terminal() else line)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """In a pipe, a header and a line for each row, nothing cut off.

    On a terminal a table; where it is too narrow for one, the fields of each row below each other.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    if not on_terminal():
        for row in (columns, *shown):
            print("\t".join(row))
        return
    console = Console(highlight=False)
    if _least_width(columns, shown) <= console.width:
        console.print(table(columns, shown))
        return
    for number, row in enumerate(shown):
        if number:
            print()
        print(stacked(columns, row, console.width))


def print_fields(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A name and what it says on each line; on a terminal long texts break between words.

    The names are a column of their own however narrow the terminal is.
    """
    if on_terminal():
        Console(highlight=False).print(table(columns, rows))
    else:
        print_table(columns, rows)


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How wide a terminal must be for a table in which no name or id is broken."""
    widths = []
    for place, name in enumerate(columns):
        widest = max(len(name), *(len(row[place]) for row in rows), 0)
        widths.append(min(widest, SENTENCE_WIDTH) if name in SENTENCES else widest)
    return sum(widths) + GAP * (len(widths) - 1)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The same for a terminal."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        drawn.add_column(name, overflow="fold", no_wrap=name in WHOLE)
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    return drawn


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"{type(value).__name__} has no JSON form")
