"""What the relay can be told. The standard library alone: a health check loads it all the time."""

from outbox_relay.settings.secret import Secret
from outbox_relay.settings.table import Settings

__all__ = ["Secret", "Settings"]
