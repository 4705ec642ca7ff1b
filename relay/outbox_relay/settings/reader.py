"""Reads the settings once, checks them whole, and names in each error the variable to correct."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from outbox_relay.errors import SettingsError
from outbox_relay.settings.durability import MEMORY, Durability
from outbox_relay.settings.durations import duration
from outbox_relay.settings.names import ANY, PLAIN_DATA, RESERVED, Names, reserved_but
from outbox_relay.settings.secret import Secret
from outbox_relay.settings.table import PREFIX, Settings, flag_of
from outbox_relay.settings.urls import check_broker_url, check_database_url
from outbox_relay.settings.values import (
    DEFAULT_ADDRESS,
    address,
    between,
    declare,
    identifier,
    log_format,
    log_level,
    management_url,
    positive_duration,
    transport_options,
)

T = TypeVar("T")


def read_settings(
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    schemes: Sequence[str],
    *,
    need_broker: bool,
) -> Settings:
    """Read the settings, or raise a SettingsError that names what is wrong.

    `flags` holds what was given on the command line, by the variable's name; it wins. `schemes`
    are those that the URL of a broker may have.
    """
    check_url = partial(check_broker_url, schemes=schemes)
    reader = _Reader(environ, flags)
    settings = Settings(
        database_url=reader.secret("OUTBOX_DATABASE_URL", check_database_url, required=True),
        broker_url=reader.secret("OUTBOX_BROKER_URL", check_url, required=need_broker),
        schema=reader.read("OUTBOX_SCHEMA", identifier, "outbox"),
        declare=reader.read("OUTBOX_DECLARE", declare, "missing"),
        batch_size=reader.read("OUTBOX_BATCH_SIZE", between(1, 10_000), 500),
        window=reader.read("OUTBOX_WINDOW", between(1, 100_000), 4000),
        max_attempts=reader.read("OUTBOX_MAX_ATTEMPTS", between(1, 10_000), 10),
        retry_delay=reader.read("OUTBOX_RETRY_DELAY", duration, 1.0),
        retention=reader.read("OUTBOX_RETENTION", duration, 7 * 86400.0),
        http_address=reader.read("OUTBOX_HTTP_ADDRESS", address, DEFAULT_ADDRESS),
        log_format=reader.read("OUTBOX_LOG_FORMAT", log_format, "json"),
        log_level=reader.read("OUTBOX_LOG_LEVEL", log_level, "info"),
        grace_period=reader.read("OUTBOX_GRACE_PERIOD", duration, 25.0),
        confirm_timeout=reader.read("OUTBOX_CONFIRM_TIMEOUT", positive_duration, 30.0),
        statement_timeout=reader.read("OUTBOX_STATEMENT_TIMEOUT", positive_duration, 10.0),
        lease=reader.read("OUTBOX_LEASE", positive_duration, 10.0),
        redis_confirm=reader.read("OUTBOX_REDIS_CONFIRM", Durability.parse, MEMORY),
        transport_options=reader.secret(
            "OUTBOX_BROKER_TRANSPORT_OPTIONS", transport_options, required=False
        ),
        management_url=reader.read("OUTBOX_MANAGEMENT_URL", management_url, None),
        allow_content_types=reader.read("OUTBOX_ALLOW_CONTENT_TYPES", Names.parse, PLAIN_DATA),
        allow_exchanges=reader.read("OUTBOX_ALLOW_EXCHANGES", Names.parse, ANY),
        reserved=reader.read("OUTBOX_ALLOW_RESERVED", reserved_but, RESERVED),
    )
    reader.refuse_unknown()
    return settings


class _Reader:
    """Remembers what was asked for, so that a misspelt variable is an error and not a silence."""

    def __init__(self, environ: Mapping[str, str], flags: Mapping[str, str]) -> None:
        given = {name.removesuffix("_FILE") for name in flags}
        shadowed = given | {f"{name}_FILE" for name in given}
        self._flags = flags
        self._environ = {k: v for k, v in environ.items() if k not in shadowed} | dict(flags)
        self._known: set[str] = set()

    def _label(self, name: str) -> str:
        return flag_of(name) if name in self._flags else name

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        self._known.add(name)
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{self._label(name)}={text!r}: {error}") from error

    def secret(self, name: str, check: Callable[[str], object], *, required: bool) -> Secret:
        self._known |= {name, f"{name}_FILE"}
        value, path = self._environ.get(name, "").strip(), self._environ.get(f"{name}_FILE")
        if value and path:
            both = f"{self._label(name)} and {self._label(f'{name}_FILE')}"
            raise SettingsError(f"{both} are both set: keep one")
        if not value and not path:
            if required:
                raise SettingsError(f"{name} is not set (nor {name}_FILE, a file holding it)")
            return Secret(name)
        if path:
            secret = Secret(self._label(f"{name}_FILE"), path=Path(path), check=check)
        else:
            secret = Secret(self._label(name), value, check=check)
        secret.read()
        return secret

    def refuse_unknown(self) -> None:
        ours = {name for name in self._environ if name.startswith(PREFIX)}
        if unknown := sorted(ours - self._known):
            known = ", ".join(sorted(self._known))
            raise SettingsError(f"{unknown[0]} is not a setting; there are: {known}")
