"""What a check found: always with what to do, unless all is well."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is; only a problem makes `doctor` exit with 1."""

    OK = "ok"
    WARN = "warn"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    name: str
    level: Level
    text: str
    remedy: str = ""


def ok(name: str, text: str) -> Finding:
    """All is well."""
    return Finding(name, Level.OK, text)


def warn(name: str, text: str, remedy: str) -> Finding:
    """It works, but may not for long, or could not be checked."""
    return Finding(name, Level.WARN, text, remedy)


def problem(name: str, text: str, remedy: str) -> Finding:
    """Messages are not flowing, or may be lost."""
    return Finding(name, Level.PROBLEM, text, remedy)
