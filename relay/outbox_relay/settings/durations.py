"""Durations as people write and read them: `36h` is a setting, `1d 12h` is what they are shown."""

import re
from math import isfinite
from typing import Final

#: Units a duration may be written in, in seconds.
UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: The longest duration, in seconds: a hundred years.
MAX_SECONDS: Final = 36_500 * 86400
#: How long durations are written for people.
SHOWN_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60))


def duration(text: str) -> float:
    """Seconds from `90`, `500ms`, `10s`, `5m`, `36h`, `7d` or `2w`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)?", text)
    if not match:
        raise ValueError("give a duration such as 30s, 5m, 36h or 7d")
    seconds = float(match[1]) * UNITS[match[2] or "s"]
    if seconds > MAX_SECONDS:  # beyond it the database's own clock arithmetic overflows
        raise ValueError(f"give at most {MAX_SECONDS // 86400}d")
    return seconds


def how_long(seconds: float) -> str:
    """`3 s`, `5m 10s`, `2h 5m`, `3d 4h`: two units, as people say it."""
    if not isfinite(seconds):
        return "for ever" if seconds > 0 else "no time at all"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    rest = round(seconds)
    parts: list[str] = []
    for unit, size in SHOWN_UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join([*parts, f"{rest}s"][:2])
