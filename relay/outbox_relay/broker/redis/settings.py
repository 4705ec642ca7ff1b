"""What only Redis' publisher can be told."""

from typing import Final

from outbox_relay.broker.redis.durability import VARIABLE, Durability
from outbox_relay.settings.setting import Setting
from outbox_relay.settings.values import share

CONFIRM: Final = Setting(
    VARIABLE,
    Durability.parse,
    "memory",
    "what Redis must have done before a message counts as confirmed: `memory`, `replicated:N`, "
    "`fsync` or `fsync+replicated:N`",
    note="[Below](#redis)",
)
MAX_MEMORY: Final = Setting(
    "OUTBOX_REDIS_MAX_MEMORY",
    share,
    "70%",
    "messages wait in the outbox, instead of in long queues, while more than this share of Redis' "
    "`maxmemory` is used; `off`: never",
    note="[Depth](#depth)",
)
