"""Which outboxes there are: what the file names, and what is found in its databases.

Tenants come and go without a restart: whoever reads again sees them. What cannot be known just now
stays as it was: of a database that is away its outboxes, of a file that is wrong its last lines.
"""

from dataclasses import dataclass
from typing import Final

from outbox_relay.errors import SettingsError
from outbox_relay.many.discovery import DEADLINE, Discovery
from outbox_relay.many.file import DatabasesFile
from outbox_relay.many.lines import Address, Line
from outbox_relay.many.outbox import Outbox
from outbox_relay.settings import Settings
from outbox_relay.settings.table import DATABASES_FILE

#: So many names are enough to see how they look.
MAX_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """The outboxes in the order of the file, and in sentences what could not be known."""

    outboxes: tuple[Outbox, ...]
    trouble: tuple[str, ...] = ()


class Roster:
    """The outboxes of OUTBOX_DATABASES_FILE. For one thread."""

    def __init__(
        self, settings: Settings, *, need_broker: bool = True, deadline: float = DEADLINE
    ) -> None:
        if settings.databases_file is None:
            raise SettingsError(f"{DATABASES_FILE.name} is not set")
        self._file = DatabasesFile(settings.databases_file, settings, need_broker=need_broker)
        self._discovery = Discovery(deadline=deadline)
        self._known: dict[Address, tuple[str, ...]] = {}

    def read(self) -> Reading:
        """All there are now. Raises SettingsError where the file was never right."""
        lines, wrong = self._file.lines()
        trouble = [*([wrong] if wrong else []), *self._look(lines)]
        outboxes: dict[tuple[Address, str], Outbox] = {}
        for line in lines:
            schemas = line.schemas(self._known.get(line.address, ()))
            if not schemas and line.address in self._known:
                trouble.append(_nothing(line))
            for schema in schemas:
                outboxes.setdefault((line.address, schema), line.outbox(schema))
        return Reading(tuple(outboxes.values()), tuple(trouble))

    def named(self, name: str) -> Outbox:
        """The outbox of that name. Raises SettingsError; no database need be there to be asked."""
        lines, _ = self._file.lines()
        for line in lines:
            if found := line.named(name):
                return found
        shown = ", ".join(_example(line) for line in lines[:MAX_SHOWN])
        more = f" and {len(lines) - MAX_SHOWN} more" if len(lines) > MAX_SHOWN else ""
        raise SettingsError(f"no outbox is called {name!r}; there are: {shown}{more}")

    def _look(self, lines: list[Line]) -> list[str]:
        """Learn which schemas there are; what could not be learnt, in sentences."""
        databases: dict[Address, Line] = {}
        for line in lines:
            if line.wild:
                databases.setdefault(line.address, line)
        answers = self._discovery.ask({a: line.settings for a, line in databases.items()})
        trouble = []
        for address, line in databases.items():
            answer = answers[address]
            if not answer.trouble:
                self._known[address] = answer.schemas
                continue
            then = "outboxes found before are kept" if address in self._known else "none is known"
            trouble.append(f"{line.name}: {answer.trouble} ({then})")
        self._known = {
            address: self._known[address] for address in databases if address in self._known
        }
        return trouble


def _nothing(line: Line) -> str:
    patterns = " ".join(line.wild)
    return (
        f"{line.name}: no schema called {patterns} holds an outbox (line {line.number}): create "
        f"the schemas, then outbox-migrate up --schemas '{line.wild[0]}'"
    )


def _example(line: Line) -> str:
    """A name as this line gives them."""
    return line.outbox(line.patterns[0]).name
