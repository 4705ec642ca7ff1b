"""Redis's wire protocol, as far as a publisher writes it. Reading it is hiredis's business."""

from typing import Final


def command(*parts: bytes) -> bytes:
    """A command as Redis reads it."""
    return b"*%d\r\n" % len(parts) + b"".join(map(_argument, parts))


def opening(*parts: bytes, more: int) -> bytes:
    """A command but for its last `more` arguments."""
    return b"*%d\r\n" % (len(parts) + more) + b"".join(map(_argument, parts))


def code(error: object) -> str:
    """The first word of an error, by which Redis tells kinds of error apart."""
    return str(error).partition(" ")[0]


def _argument(part: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(part), part)


MULTI: Final = command(b"MULTI")
EXEC: Final = command(b"EXEC")
PING: Final = command(b"PING")
