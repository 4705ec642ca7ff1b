"""What people type after a flag, checked before anything is done.

Each parser raises ArgumentTypeError; argparse then names the flag and the exit code is 2.
"""

from argparse import ArgumentTypeError
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from outbox_relay.errors import SettingsError
from outbox_relay.settings.durations import duration


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time, or so long ago by the database's clock."""

    at: datetime | None = None
    ago: float = 0.0

    def before(self, now: datetime) -> datetime:
        """The point in time, given what the database's clock says now."""
        return self.at or now - timedelta(seconds=self.ago)


def moment(text: str) -> Moment:
    """`2h` for two hours ago, or a date and time; without an offset it is UTC."""
    when = _when(text, "2h for two hours ago")
    return Moment(at=when) if isinstance(when, datetime) else Moment(ago=when)


@dataclass(frozen=True, slots=True)
class Later:
    """A point in time, or so long from now by the database's clock."""

    at: datetime | None = None
    seconds: float = 0.0

    def after(self, now: datetime) -> datetime:
        """The point in time, given what the database's clock says now."""
        try:
            return self.at or now + timedelta(seconds=self.seconds)
        except OverflowError:
            raise SettingsError("--at is beyond the year 9999: give an earlier time") from None


def later(text: str) -> Later:
    """`2h` for in two hours, or a date and time; without an offset it is UTC."""
    when = _when(text, "2h for in two hours")
    return Later(at=when) if isinstance(when, datetime) else Later(seconds=when)


def _when(text: str, example: str) -> datetime | float:
    """A date and time, or a duration in seconds."""
    try:
        return duration(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(
            f"{text!r} is neither a duration, such as {example}, "
            "nor a time, such as 2030-01-31T08:00:00Z"
        ) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def reason(text: str) -> str:
    """Why somebody acts: kept in the database."""
    if "\0" in text or len(text.encode()) > 2000:
        raise ArgumentTypeError("give at most 2000 bytes of text")
    return text


def age(text: str) -> float:
    """A duration in seconds."""
    try:
        return duration(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r}: {error}") from error


def limit(text: str) -> int:
    """How many rows to print."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 100_000:
        raise ArgumentTypeError(f"{text!r}: give a whole number from 1 to 100000")
    return int(text)


def message_id(text: str) -> str:
    """A message id (the Celery task id), or the number of a row."""
    if not text.isprintable() or not 1 <= len(text.encode()) <= 255:
        raise ArgumentTypeError(
            f"{text[:40]!r} cannot be an id: give a message id (the Celery task id) or a row's id"
        )
    return text


def pattern(text: str) -> str:
    """A name, or a pattern of names."""
    if "\0" in text or not 1 <= len(text.encode()) <= 255:
        raise ArgumentTypeError("give a name of 1 to 255 bytes, such as mail or mail.*")
    return text
