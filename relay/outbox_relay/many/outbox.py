"""One of the outboxes that a process serves: its name, and the settings it is served with."""

from dataclasses import dataclass

from outbox_relay.settings import Settings


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
