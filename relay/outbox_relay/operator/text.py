"""Text from rows, made safe to show: it cannot move a cursor, colour a screen or forge a line."""

from datetime import datetime


def printable(value: object) -> str:
    """Text without control characters; None is empty, a time is short, in UTC."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
