"""Values as the server reads them in text: arrays, and texts of rows and brokers made storable."""

from collections.abc import Iterable

from psycopg import ConnectionInfo


def charset_of(server: ConnectionInfo) -> str:
    """What its text columns can hold; a database of another encoding than UTF-8 holds ASCII."""
    encoding = server.parameter_status("server_encoding")
    return "utf-8" if encoding in ("UTF8", "SQL_ASCII") else "ascii"


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
