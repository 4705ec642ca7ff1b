"""What only Redis' publisher can be told."""

from typing import Final

from outbox_relay.broker.redis.durability import VARIABLE, Durability
from outbox_relay.settings.setting import Setting

CONFIRM: Final = Setting(
    VARIABLE,
    Durability.parse,
    "memory",
    "what Redis must have done before a message counts as confirmed: `memory`, `replicated:N`, "
    "`fsync` or `fsync+replicated:N`",
    note="[Below](#redis)",
)
