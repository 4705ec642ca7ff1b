"""One thing the relay can be told: its variable, its flag, its line of `--help`, its row of a page.

A value is read from text, a default as well: what `--help` shows is what is done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from outbox_relay.settings.secret import Secret

T = TypeVar("T")

PREFIX: Final = "OUTBOX_"


def flag_of(variable: str) -> str:
    """The command line's name of a variable: OUTBOX_BATCH_SIZE is --batch-size."""
    return "--" + variable.removeprefix(PREFIX).lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A setting. `parse` raises ValueError, saying what to give.

    A default that is too long to be shown has a `shown_default`; `note` is for the page alone.
    """

    name: str
    parse: Callable[[str], T]
    default: str
    help: str
    shown_default: str = ""
    note: str = ""
    secret: bool = False

    @property
    def field(self) -> str:
        """The attribute of Settings that holds the value."""
        return self.name.removeprefix(PREFIX).lower()

    @property
    def variables(self) -> tuple[str, ...]:
        """Its names in the environment: a secret may be in a file."""
        return (self.name, f"{self.name}_FILE") if self.secret else (self.name,)

    @property
    def initial(self) -> T:
        """The value where nothing is said."""
        return self.parse(self.default)


def secret(name: str, check: Callable[[str], object], help: str, note: str = "") -> Setting[Secret]:
    """A setting that holds a password; `check` raises ValueError over what cannot be right."""
    return Setting(
        name,
        lambda text: Secret(name, text, check=check),
        default="",
        help=help,
        note=note,
        secret=True,
    )
