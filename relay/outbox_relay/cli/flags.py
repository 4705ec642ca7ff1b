"""Every environment variable as a flag: `OUTBOX_BATCH_SIZE` is `--batch-size`, and the flag wins.

A password on a command line can be read by everybody on the machine with `ps`: prefer
`--database-url-file` and `--broker-url-file`, or the environment.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping
from typing import Final

from outbox_relay.settings.table import PREFIX, flag_of

_VISIBLE: Final = "; others can see it with ps, so prefer the file"

VARIABLES: Final[Mapping[str, str]] = {
    "OUTBOX_DATABASE_URL": f"libpq URL or conninfo of the outbox's database{_VISIBLE}",
    "OUTBOX_DATABASE_URL_FILE": "a file that holds it",
    "OUTBOX_BROKER_URL": f"amqp://, amqps://, redis:// or rediss:// URL{_VISIBLE}",
    "OUTBOX_BROKER_URL_FILE": "a file that holds it",
    "OUTBOX_SCHEMA": "Postgres schema of the tables (outbox)",
    "OUTBOX_STATEMENT_TIMEOUT": "longest wait for one statement (10s)",
    "OUTBOX_DECLARE": "declare missing queues and exchanges: missing or never",
    "OUTBOX_REDIS_CONFIRM": "how far Redis must have stored a message",
    "OUTBOX_BROKER_TRANSPORT_OPTIONS": "Celery's broker_transport_options, as JSON",
    "OUTBOX_BROKER_TRANSPORT_OPTIONS_FILE": "a file that holds them",
    "OUTBOX_MANAGEMENT_URL": "RabbitMQ's management API (the broker's host, port 15672)",
    "OUTBOX_ALLOW_CONTENT_TYPES": "content types to publish (no pickle, no YAML)",
    "OUTBOX_ALLOW_EXCHANGES": "exchanges rows may name (all)",
    "OUTBOX_ALLOW_RESERVED": "of CC, BCC and user_id, those that rows may set (none)",
    "OUTBOX_BATCH_SIZE": "rows claimed at a time",
    "OUTBOX_WINDOW": "most messages unconfirmed at a time",
    "OUTBOX_MAX_ATTEMPTS": "refusals by the broker until a message is dead (10)",
    "OUTBOX_RETRY_DELAY": "wait after the first refusal (1s)",
    "OUTBOX_RETENTION": "how long sent messages are kept (7d)",
    "OUTBOX_CONFIRM_TIMEOUT": "longest wait for a confirm (30s)",
    "OUTBOX_GRACE_PERIOD": "longest wait for confirms on SIGTERM (25s)",
    "OUTBOX_LEASE": "how long a claim lasts unless renewed (10s)",
    "OUTBOX_HTTP_ADDRESS": "metrics and probes: host:port, or off (127.0.0.1:9464)",
    "OUTBOX_LOG_FORMAT": "json, or console for people",
    "OUTBOX_LOG_LEVEL": "debug, info, warning or error (info)",
}
DATABASE: Final = (
    "OUTBOX_DATABASE_URL",
    "OUTBOX_DATABASE_URL_FILE",
    "OUTBOX_SCHEMA",
    "OUTBOX_STATEMENT_TIMEOUT",
)
BROKER: Final = (
    "OUTBOX_BROKER_URL",
    "OUTBOX_BROKER_URL_FILE",
    "OUTBOX_BROKER_TRANSPORT_OPTIONS",
    "OUTBOX_BROKER_TRANSPORT_OPTIONS_FILE",
    "OUTBOX_DECLARE",
    "OUTBOX_MANAGEMENT_URL",
)
DAEMON: Final = tuple(name for name in VARIABLES if name != "OUTBOX_MANAGEMENT_URL")


def add_flags(parser: ArgumentParser, variables: Iterable[str]) -> None:
    """Let the parser take these variables."""
    group = parser.add_argument_group("settings", "each also an environment variable")
    for name in variables:
        group.add_argument(
            flag_of(name),
            dest=name,
            metavar=flag_of(name).removeprefix("--").replace("-", "_").upper(),
            help=f"{VARIABLES[name]} [{name}]",
        )


def given(arguments: Namespace) -> dict[str, str]:
    """The variables that were given as flags."""
    return {
        name: value
        for name, value in vars(arguments).items()
        if name.startswith(PREFIX) and value is not None
    }
