"""The relay's settings: read once, checked whole, each error naming the variable to mend.

Secrets may live in files (`OUTBOX_DATABASE_URL_FILE`, `OUTBOX_BROKER_URL_FILE`), which are read
again on every reconnect, so that a rotated password needs no restart.
"""

from dataclasses import dataclass
from typing import Final, Literal

from outbox_relay.settings.durability import MEMORY, Durability
from outbox_relay.settings.names import ANY, PLAIN_DATA, RESERVED, Names
from outbox_relay.settings.secret import Secret
from outbox_relay.settings.values import DEFAULT_ADDRESS, Address

NO_OPTIONS: Final = Secret("OUTBOX_BROKER_TRANSPORT_OPTIONS")
PREFIX: Final = "OUTBOX_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `outbox-relay` can be told, in seconds, bytes and messages."""

    database_url: Secret
    broker_url: Secret
    schema: str = "outbox"
    declare: Literal["missing", "never"] = "missing"
    batch_size: int = 500
    window: int = 4000
    max_attempts: int = 10
    retry_delay: float = 1.0
    retention: float = 7 * 86400
    http_address: Address = DEFAULT_ADDRESS
    log_format: Literal["json", "console"] = "json"
    log_level: str = "info"
    grace_period: float = 25.0
    confirm_timeout: float = 30.0
    statement_timeout: float = 10.0
    management_url: str | None = None
    lease: float = 10.0
    redis_confirm: Durability = MEMORY
    transport_options: Secret = NO_OPTIONS
    allow_content_types: Names = PLAIN_DATA
    allow_exchanges: Names = ANY
    reserved: frozenset[str] = RESERVED


def flag_of(variable: str) -> str:
    """The command line's name of a variable: OUTBOX_BATCH_SIZE is --batch-size."""
    return "--" + variable.removeprefix(PREFIX).lower().replace("_", "-")
