"""The relay's own settings, in one table; those of a broker are in its package.

Environment, flags, `--help` and the table in docs/operations.md are all made of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from outbox_relay.settings.durations import duration
from outbox_relay.settings.names import PLAIN_DATA, Names
from outbox_relay.settings.secret import Secret
from outbox_relay.settings.setting import Setting, secret
from outbox_relay.settings.urls import check_database_url
from outbox_relay.settings.values import (
    Address,
    Declare,
    Doorbell,
    LogFormat,
    address,
    between,
    declare,
    doorbell,
    fence,
    file_path,
    identifier,
    log_format,
    log_level,
    most,
    off_or_on,
    positive_duration,
    queue_names,
    switch,
    transport_options,
)

T = TypeVar("T")

DATABASE_URL: Final = secret(
    "OUTBOX_DATABASE_URL",
    check_database_url,
    "libpq URL or conninfo of the outbox's database",
    "Several hosts and `target_session_attrs=read-write` follow a fail-over",
)
INBOX_URL: Final = secret(
    "OUTBOX_INBOX_URL",
    check_database_url,
    "libpq URL or conninfo of the database that holds the inbox, where it is another one",
)
SCHEMA: Final = Setting("OUTBOX_SCHEMA", identifier, "outbox", "Postgres schema of the tables")
DATABASES_FILE: Final = Setting(
    "OUTBOX_DATABASES_FILE",
    file_path,
    "",
    "a file of databases, one a line, whose outboxes one relay serves",
    note="[Many outboxes](how-to/many-outboxes.md)",
)
MAX_CONNECTIONS: Final = Setting(
    "OUTBOX_MAX_CONNECTIONS",
    between(10, 10_000),
    "60",
    "most connections to databases of a relay that serves many outboxes",
    note="One for each database, the rest for outboxes with work",
)
STATEMENT_TIMEOUT: Final = Setting(
    "OUTBOX_STATEMENT_TIMEOUT",
    positive_duration,
    "10s",
    "longest wait for one statement before the connection is dropped",
)
DOORBELL: Final = Setting(
    "OUTBOX_DOORBELL",
    doorbell,
    "auto",
    "whether an idle relay sleeps until a commit wakes it; `off`: it polls twenty times a second",
    note="`auto` is `off` behind a pooler, and where the server allows prepared transactions",
)
DECLARE: Final = Setting(
    "OUTBOX_DECLARE",
    declare,
    "missing",
    "`missing`: declare queues and exchanges as Celery would; `never`: leave that to others",
    note="`never` is for a user of the broker without configure rights",
)
BROKER_TRANSPORT_OPTIONS: Final = secret(
    "OUTBOX_BROKER_TRANSPORT_OPTIONS",
    transport_options,
    "Celery's `broker_transport_options`, as JSON",
    '`{"global_keyprefix": "shop:"}`, Sentinel\'s `master_name`',
)
BATCH_SIZE: Final = Setting(
    "OUTBOX_BATCH_SIZE", between(1, 10_000), "500", "most rows claimed at a time"
)
WINDOW: Final = Setting(
    "OUTBOX_WINDOW",
    between(1, 100_000),
    "4000",
    "most messages unconfirmed at a time, and most that a killed relay can duplicate",
)
MAX_ATTEMPTS: Final = Setting(
    "OUTBOX_MAX_ATTEMPTS",
    between(1, 10_000),
    "10",
    "refusals by the broker until a message is dead; outages and full queues never count",
)
RETRY_DELAY: Final = Setting(
    "OUTBOX_RETRY_DELAY",
    duration,
    "1s",
    "wait after the first refusal; it doubles, up to five minutes",
)
RETENTION: Final = Setting(
    "OUTBOX_RETENTION",
    duration,
    "7d",
    "how long sent messages can be looked at and replayed; `0` deletes them on confirm",
)
LEASE: Final = Setting(
    "OUTBOX_LEASE",
    positive_duration,
    "10s",
    "how long a claim lasts unless renewed: how long a dead relay's messages wait for another",
)
CONFIRM_TIMEOUT: Final = Setting(
    "OUTBOX_CONFIRM_TIMEOUT",
    positive_duration,
    "30s",
    "longest wait for a confirm before the connection is dropped",
)
GRACE_PERIOD: Final = Setting(
    "OUTBOX_GRACE_PERIOD",
    duration,
    "25s",
    "longest time from SIGTERM to the end of the process, whatever is away",
    note="Four fifths of it are for messages in flight",
)
HTTP_ADDRESS: Final = Setting(
    "OUTBOX_HTTP_ADDRESS",
    address,
    "127.0.0.1:9464",
    "where metrics and probes are served: `host:port`, or `off`",
    note="There are `/metrics`, `/livez` and `/readyz`",
)
LOG_FORMAT: Final = Setting(
    "OUTBOX_LOG_FORMAT",
    log_format,
    "auto",
    "`json`, `console` for people, or `auto`: console on a terminal, else json",
)
LOG_LEVEL: Final = Setting(
    "OUTBOX_LOG_LEVEL", log_level, "info", "`debug`, `info`, `warning` or `error`"
)
TRACING: Final = Setting(
    "OUTBOX_TRACING",
    off_or_on,
    "off",
    "`on`: spans by OpenTelemetry, set up by the usual `OTEL_` variables",
    note="[Traces](how-to/tracing.md); needs `outbox-relay[otel]`",
)
ALLOW_CONTENT_TYPES: Final = Setting(
    "OUTBOX_ALLOW_CONTENT_TYPES",
    Names.parse,
    PLAIN_DATA,
    "content types that are published; `*` stands for any text",
    shown_default="JSON, msgpack, text, plain data",
    note="[Not pickle, not YAML](security.md#what-rows-may-ask-for)",
)
ALLOW_EXCHANGES: Final = Setting(
    "OUTBOX_ALLOW_EXCHANGES",
    Names.parse,
    "*",
    "exchanges that rows may name or declare; `amq.default` is the one Celery's queues are on",
)
DEAD_LETTER_QUEUES: Final = Setting(
    "OUTBOX_DEAD_LETTER_QUEUES",
    queue_names,
    "",
    "queues of dead letters, besides the `.dead` of each known queue, separated by commas",
    shown_default="none",
    note="[Dead letters come home](#dead-letters-come-home)",
)
HOLD_UNKNOWN: Final = Setting(
    "OUTBOX_HOLD_UNKNOWN",
    switch,
    "0",
    "`1`: a message whose task no live worker of its queue knows waits until one does",
    note="[Tasks that no worker knows](#tasks-that-no-worker-knows)",
)
MAX_DEPTH: Final = Setting(
    "OUTBOX_MAX_DEPTH",
    most,
    "off",
    "`N`: messages wait in the outbox while their queue has more than N ready ones",
    note="[Depth](#depth)",
)
FENCE: Final = Setting(
    "OUTBOX_FENCE",
    fence,
    "off",
    "`standby:N`: only what N standbys of the database have flushed is published",
    note="[After a fail-over](scaling.md#the-fence)",
)
#: In the order in which they are shown. The broker's URL, whose schemes brokers know, is not here.
OWN: Final[tuple[Setting[Any], ...]] = (
    DATABASE_URL,
    INBOX_URL,
    SCHEMA,
    DATABASES_FILE,
    MAX_CONNECTIONS,
    STATEMENT_TIMEOUT,
    DOORBELL,
    DECLARE,
    BROKER_TRANSPORT_OPTIONS,
    BATCH_SIZE,
    WINDOW,
    MAX_ATTEMPTS,
    RETRY_DELAY,
    RETENTION,
    LEASE,
    CONFIRM_TIMEOUT,
    GRACE_PERIOD,
    HTTP_ADDRESS,
    LOG_FORMAT,
    LOG_LEVEL,
    TRACING,
    ALLOW_CONTENT_TYPES,
    ALLOW_EXCHANGES,
    DEAD_LETTER_QUEUES,
    HOLD_UNKNOWN,
    MAX_DEPTH,
    FENCE,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `outbox-relay` can be told, in seconds, bytes and messages."""

    database_url: Secret
    broker_url: Secret
    inbox_url: Secret = INBOX_URL.initial
    schema: str = SCHEMA.initial
    databases_file: Path | None = DATABASES_FILE.initial
    max_connections: int = MAX_CONNECTIONS.initial
    statement_timeout: float = STATEMENT_TIMEOUT.initial
    doorbell: Doorbell = DOORBELL.initial
    declare: Declare = DECLARE.initial
    broker_transport_options: Secret = BROKER_TRANSPORT_OPTIONS.initial
    batch_size: int = BATCH_SIZE.initial
    window: int = WINDOW.initial
    max_attempts: int = MAX_ATTEMPTS.initial
    retry_delay: float = RETRY_DELAY.initial
    retention: float = RETENTION.initial
    lease: float = LEASE.initial
    confirm_timeout: float = CONFIRM_TIMEOUT.initial
    grace_period: float = GRACE_PERIOD.initial
    http_address: Address = HTTP_ADDRESS.initial
    log_format: LogFormat = LOG_FORMAT.initial
    log_level: str = LOG_LEVEL.initial
    tracing: bool = TRACING.initial
    allow_content_types: Names = ALLOW_CONTENT_TYPES.initial
    allow_exchanges: Names = ALLOW_EXCHANGES.initial
    dead_letter_queues: tuple[str, ...] = DEAD_LETTER_QUEUES.initial
    hold_unknown: bool = HOLD_UNKNOWN.initial
    max_depth: int | None = MAX_DEPTH.initial
    fence: int = FENCE.initial
    of_brokers: Mapping[str, Any] = field(default_factory=dict)

    def of(self, setting: Setting[T]) -> T:
        """The value of a broker's own setting."""
        value: T = self.of_brokers.get(setting.name, setting.initial)
        return value
