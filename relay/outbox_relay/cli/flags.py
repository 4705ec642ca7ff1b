"""Every setting as a flag: `OUTBOX_BATCH_SIZE` is `--batch-size`, and the flag wins.

A password on a command line can be read by everybody on the machine with `ps`: prefer
`--database-url-file` and `--broker-url-file`, or the environment.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import Any, Final

from outbox_relay.broker.registry import OF_BROKERS, OF_CHECKS
from outbox_relay.configuration import BROKER_URL, TABLE
from outbox_relay.settings.setting import PREFIX, Setting, flag_of
from outbox_relay.settings.table import (
    BROKER_TRANSPORT_OPTIONS,
    DATABASE_URL,
    DATABASES_FILE,
    DECLARE,
    INBOX_URL,
    SCHEMA,
    STATEMENT_TIMEOUT,
)

Settings = tuple[Setting[Any], ...]

DATABASE: Final[Settings] = (DATABASE_URL, SCHEMA, DATABASES_FILE, STATEMENT_TIMEOUT)
INBOX: Final = INBOX_URL
BROKER: Final[Settings] = (BROKER_URL, BROKER_TRANSPORT_OPTIONS, DECLARE, *OF_BROKERS)
CHECKS: Final[Settings] = OF_CHECKS
DAEMON: Final[Settings] = tuple(setting for setting in TABLE if setting not in OF_CHECKS)


def add_flags(parser: ArgumentParser, settings: Iterable[Setting[Any]]) -> None:
    """Let the parser take these settings."""
    group = parser.add_argument_group("settings", "each also an environment variable")
    for setting in settings:
        shown = setting.shown_default or setting.default
        default = f" (default: {shown})" if shown else ""
        visible = "; others can see it with ps: prefer the file" if setting.secret else ""
        _add(group, setting.name, f"{setting.help}{visible}{default}")
        for file in setting.variables[1:]:
            _add(group, file, "a file that holds it, read again on every reconnect")


def _add(group: Any, variable: str, help: str) -> None:
    flag = flag_of(variable)
    group.add_argument(
        flag,
        dest=variable,
        metavar=flag.removeprefix("--").replace("-", "_").upper(),
        help=f"{help} [{variable}]".replace("`", "").replace("%", "%%"),
    )


def given(arguments: Namespace) -> dict[str, str]:
    """The variables that were given as flags."""
    return {
        name: value
        for name, value in vars(arguments).items()
        if name.startswith(PREFIX) and value is not None
    }
