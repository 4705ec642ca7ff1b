"""OUTBOX_DATABASES_FILE as it is now. What is half written is as good as not written.

A file that was changed a moment ago counts once it has been the same twice: it may be at the middle
of a write, in which the databases further down are missing.
"""

from pathlib import Path
from time import time
from typing import Final

from outbox_relay.errors import SettingsError
from outbox_relay.many.lines import Line, parse
from outbox_relay.settings import Settings
from outbox_relay.settings.table import DATABASES_FILE

#: Seconds after which nobody is still writing.
SETTLED: Final = 2.0


class DatabasesFile:
    """The file, and the last lines that were right."""

    def __init__(self, path: Path, base: Settings, *, need_broker: bool = True) -> None:
        self._path, self._base, self._need_broker = path, base, need_broker
        self._lines: list[Line] | None = None
        self._seen = ""

    def lines(self) -> tuple[list[Line], str]:
        """The lines that count, and what is wrong with the file; '' where nothing is.

        Raises SettingsError where it was never right.
        """
        try:
            return self._read(), ""
        except SettingsError as error:
            wrong = f"{DATABASES_FILE.name}={self._path}: {error}"
            if self._lines is None:
                raise SettingsError(wrong) from error
            return self._lines, f"{wrong}; the lines from before still count"

    def _read(self) -> list[Line]:
        try:
            text = self._path.read_text("utf-8")
            old = time() - self._path.stat().st_mtime >= SETTLED
        except UnicodeDecodeError as error:
            raise SettingsError("it is not UTF-8") from error
        except OSError as error:
            raise SettingsError(f"it cannot be read: {error.strerror}") from error
        same, self._seen = text == self._seen, text
        if self._lines is None or old or same:
            # Parsed also where nothing has changed in it: it may name files of secrets that have.
            self._lines = parse(text, self._base, need_broker=self._need_broker)
        return self._lines
