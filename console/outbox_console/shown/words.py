"""Numbers, times and bodies as people read them. Pure."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

#: Of a body or a header this much is shown.
MAX_SHOWN: Final = 20_000


def number(value: float) -> str:
    """With thousands apart; small rates keep a decimal."""
    if isinstance(value, float) and 0 < abs(value) < 9.95 and value != int(value):
        return f"{value:.1f}"
    return f"{value:,.0f}"


def amount(count: int, thing: str) -> str:
    """`1 message`, `2,000 messages`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Short, and never longer than seven characters: `0.4 s`, `12 min`, `3.1 d`."""
    if seconds is None:
        return "\u2013"
    if seconds != seconds or seconds >= 3.2e10:
        return "ages"
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    for most, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < most * 0.995:
            value = seconds / unit
            return f"{value:.1f} {name}" if value < 9.95 else f"{value:.0f} {name}"
    return f"{seconds / 86400:,.0f} d" if seconds >= 864000 else f"{seconds / 86400:.1f} d"


def instant(time: datetime) -> str:
    """To the second, in UTC; a page's script puts it into the viewer's zone."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def machine(time: datetime) -> str:
    """For programs: ISO 8601."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def pretty(text: str) -> str:
    """JSON laid out in lines; what is none stays as it is. At most MAX_SHOWN."""
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return plain(text)


def plain(text: str) -> str:
    """Without what could command a terminal or a browser. At most MAX_SHOWN."""
    return _cut("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def decoded(data: bytes, content_encoding: str) -> str | None:
    """A body as text; None where it is none."""
    try:
        return data.decode(content_encoding if content_encoding != "binary" else "ascii")
    except (UnicodeDecodeError, LookupError):
        return None


def body(data: bytes, content_encoding: str) -> str:
    """A body as text if it is some, else as base64."""
    text = decoded(data, content_encoding)
    return _cut(base64.b64encode(data).decode()) if text is None else pretty(text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "\n… (shown in part)"
