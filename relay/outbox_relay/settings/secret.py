"""A setting that holds a password: a value or a file, read again whenever it is needed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from outbox_relay.errors import SettingsError


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A value or the file that holds it, checked whenever it is read. Never printed.

    A file may be read while somebody writes it: what is half there is as good as not there.
    """

    name: str
    value: str | None = None
    path: Path | None = None
    check: Callable[[str], object] = field(default=str, compare=False)

    @property
    def source(self) -> tuple[str | None, Path | None]:
        """Where its value comes from: whatever two are called, with one source they are one."""
        return self.value, self.path

    def read(self) -> str:
        """The value as it is now; raises SettingsError where there is none that could be right."""
        if self.path is None and not self.value:
            return ""
        try:
            text = self.path.read_text().strip() if self.path else self.value or ""
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.name} cannot be read: {error}") from error
        if not text:
            raise SettingsError(f"{self.name} is empty")
        try:
            self.check(text)
        except ValueError as error:  # the value holds a password: never part of the message
            raise SettingsError(f"{self.name} is malformed: {error}") from error
        return text

    def __repr__(self) -> str:
        return f"Secret({self.name})"
