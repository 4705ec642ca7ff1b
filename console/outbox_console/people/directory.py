"""The file of people: who may come in, with which role, read again whenever it changes.

A line is `name:role:hash`; with a reverse proxy, which knows the passwords, `name:role`. Lines that
begin with # are comments. What is half written keeps the file of before, if there was one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outbox_console.errors import SettingsError
from outbox_console.people.passwords import is_hash
from outbox_console.settings import ROLES


@dataclass(frozen=True, slots=True)
class Known:
    """A person of the file."""

    name: str
    role: str
    hash: str


def parse(text: str) -> dict[str, Known]:
    """The people of a file by name; raises SettingsError that names the line and not its hash."""
    people: dict[str, Known] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, role, hash_ = (*line.strip().split(":", 2), "", "")[:3]
        if not name or role not in ROLES or not is_hash(hash_) or name in people:
            raise SettingsError(
                f"OUTBOX_CONSOLE_PEOPLE_FILE, line {number}: name:role:hash, the name once, the "
                f"role one of {', '.join(ROLES)}, the hash from `outbox-console password`"
            )
        people[name] = Known(name, role, hash_)
    return people


class Directory:
    """The file as it is now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp, self._people = self._read()

    def people(self) -> Mapping[str, Known]:
        """Everybody in it."""
        try:
            if self._stamp != _stamp(self._path):
                self._stamp, self._people = self._read()
        except (SettingsError, OSError):
            return self._people
        return self._people

    def _read(self) -> tuple[tuple[int, int], dict[str, Known]]:
        try:
            return _stamp(self._path), parse(self._path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"OUTBOX_CONSOLE_PEOPLE_FILE cannot be read: {error}") from error


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
