"""Values as the server reads them in text: arrays, and texts of rows and brokers made storable."""

from collections.abc import Iterable


def storable(text: str, charset: str) -> str:
    """A reason that a text column can hold, whatever the row or the broker put into it."""
    return text.replace("\0", "")[:1000].encode(charset, "backslashreplace").decode(charset)


def bigints(numbers: Iterable[int]) -> str:
    """An array literal: the driver's own dumping of long lists costs several times as much."""
    return "{" + ",".join(map(str, numbers)) + "}"


def texts(values: Iterable[str]) -> str:
    """An array literal of texts."""
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "{" + ",".join(f'"{value}"' for value in quoted) + "}"
