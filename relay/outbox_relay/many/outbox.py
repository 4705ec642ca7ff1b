"""One of the outboxes that a process serves: its name, and the settings it is served with."""

import re
from dataclasses import dataclass
from typing import Final

from outbox_relay.settings import Settings

_NUMBER: Final = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[object, ...]:
    """By this, names are in the order in which people count: tenant_2 before tenant_10."""
    return tuple(
        tuple(int(part) if at % 2 else part for at, part in enumerate(_NUMBER.split(half)))
        for half in name.split("/")
    )


@dataclass(frozen=True, slots=True)
class Outbox:
    """An outbox as OUTBOX_DATABASES_FILE gives it.

    The name is unique and short, such as `shop` or `shop/tenant_7`: it stands in log lines,
    metrics and commands. The settings are as if a relay ran for this outbox alone.
    """

    name: str
    settings: Settings

    @property
    def database(self) -> str:
        """What its database is called."""
        return self.name.partition("/")[0]
