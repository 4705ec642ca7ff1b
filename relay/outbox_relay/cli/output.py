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

from outbox_relay.operator.text import printable

#: Columns that are never wrapped, because people copy from them.
WHOLE: Final = ("id", "message_id")


def print_json(value: Any) -> None:
    """One JSON document on one line; times as ISO 8601."""
    text = json.dumps(value, default=_plain, ensure_ascii=False)
    # Half a surrogate pair, which JSON can hold and UTF-8 cannot, is printed as an escape.
    print(text.encode(errors="backslashreplace").decode(), flush=True)


def print_records(records: Iterable[Any], columns: Sequence[str]) -> None:
    """Dataclasses as a JSON array of objects with these keys."""
    chosen = [{key: value for key, value in asdict(r).items() if key in columns} for r in records]
    print_json(chosen)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that fits the terminal; in a pipe, a header and a line each, nothing cut off."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(printable(cell) for cell in row))
        return
    Console().print(table(columns, rows))


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
