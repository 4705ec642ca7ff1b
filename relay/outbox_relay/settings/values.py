"""How the value of each setting is read. Every parser raises ValueError, saying what to give."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from outbox_relay.settings.durations import duration

#: Host and port to listen on; None for nowhere.
Address = tuple[str, int] | None
Declare = Literal["missing", "never"]
LogFormat = Literal["json", "console", "auto"]
Doorbell = Literal["auto", "on", "off"]


def transport_options(text: str) -> dict[str, Any]:
    """What Celery calls broker_transport_options, from JSON; nothing from nothing."""
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"give a JSON object: {error}") from error
    if not isinstance(options, dict):
        raise ValueError("give a JSON object")
    return options


def identifier(text: str) -> str:
    """The name of a schema that needs no quotes."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text):
        raise ValueError("use lower-case letters, digits and underscores, at most 63")
    return text


def declare(text: str) -> Declare:
    """What to do about queues and exchanges that are missing."""
    if text == "missing":
        return "missing"
    if text == "never":
        return "never"
    raise ValueError("say missing or never")


def doorbell(text: str) -> Doorbell:
    """Whether an idle relay is woken by the database."""
    if text == "auto":
        return "auto"
    if text == "on":
        return "on"
    if text == "off":
        return "off"
    raise ValueError("say auto, on or off")


def fence(text: str) -> int:
    """How many standbys are to have what is published; 0 for `off`."""
    if text == "off":
        return 0
    kind, _, number = text.partition(":")
    if kind != "standby" or not re.fullmatch(r"[1-9][0-9]?", number):
        raise ValueError("say off, or standby:N with N from 1 to 99")
    return int(number)


def log_format(text: str) -> LogFormat:
    """How log lines are written."""
    if text == "json":
        return "json"
    if text == "console":
        return "console"
    if text == "auto":
        return "auto"
    raise ValueError("say json or console")


def log_level(text: str) -> str:
    """The lowest level that is logged."""
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("say debug, info, warning or error")
    return text.lower()


def between(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers within these bounds."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return parse


def most(text: str) -> int | None:
    """A whole number, or None for `off`."""
    return None if text == "off" else between(1, 1_000_000_000)(text)


def share(text: str) -> float | None:
    """A percentage, or None for `off`."""
    if text == "off":
        return None
    if not text.endswith("%"):
        raise ValueError("say off, or a percentage such as 70%")
    return between(1, 100)(text[:-1]) / 100


def positive_duration(text: str) -> float:
    """A duration of at least a second."""
    seconds = duration(text)
    if seconds < 1:
        raise ValueError("give at least 1s")
    return seconds


def switch(text: str) -> bool:
    """On or off."""
    if text in ("0", "1"):
        return text == "1"
    raise ValueError("say 0 or 1")


def off_or_on(text: str) -> bool:
    """Whether it is on."""
    if text in ("off", "on"):
        return text == "on"
    raise ValueError("say off or on")


def file_path(text: str) -> Path | None:
    """Where a file is; None from nothing."""
    return Path(text) if text else None


def queue_names(text: str) -> tuple[str, ...]:
    """Names separated by commas; none from nothing."""
    names = tuple(name for each in text.split(",") if (name := each.strip()))
    if any(len(name.encode()) > 255 for name in names):
        raise ValueError("the name of a queue has at most 255 bytes")
    return names


def address(text: str) -> Address:
    """Host and port, or None for `off`."""
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("give host:port, such as 0.0.0.0:9464, or off")
    return host.strip("[]") or "0.0.0.0", int(port)
