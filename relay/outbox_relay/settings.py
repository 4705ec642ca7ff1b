"""The relay's settings: read once, checked whole, each error naming the variable to mend.

Secrets may live in files (`OUTBOX_DATABASE_URL_FILE`, `OUTBOX_BROKER_URL_FILE`), which are read
again on every reconnect, so that a rotated password needs no restart.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from outbox_relay.errors import SettingsError
from outbox_relay.policy import ANY, PLAIN_DATA, RESERVED, Names, reserved_but
from outbox_relay.redis.durability import MEMORY, Durability
from outbox_relay.urls import check_broker_url, check_database_url

T = TypeVar("T")

#: Host and port to listen on; None for nowhere.
Address = tuple[str, int] | None
DEFAULT_ADDRESS: Final[Address] = ("127.0.0.1", 9464)

#: Units a duration may be written in, in seconds.
UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
#: The longest duration, in seconds: a hundred years.
LONGEST: Final = 36_500 * 86400
PREFIX: Final = "OUTBOX_"


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A value or the file that holds it, checked whenever it is read. Never printed.

    A file may be read while somebody writes it: what is half there is as good as not there.
    """

    name: str
    value: str | None = None
    path: Path | None = None
    check: Callable[[str], object] = str

    def read(self) -> str:
        """The value as it is now; raises SettingsError where there is none that could be right."""
        if self.path is None and not self.value:
            return ""
        try:
            text = self.path.read_text().strip() if self.path else self.value or ""
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{self.name} cannot be read: {error}") from error
        if not text:
            raise SettingsError(f"{self.name} is empty")
        try:
            self.check(text)
        except ValueError as error:  # the value holds a password: never part of the message
            raise SettingsError(f"{self.name} is malformed: {error}") from error
        return text

    def __repr__(self) -> str:
        return f"Secret({self.name})"


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
    transport_options: Secret = Secret("OUTBOX_BROKER_TRANSPORT_OPTIONS")
    allow_content_types: Names = PLAIN_DATA
    allow_exchanges: Names = ANY
    reserved: frozenset[str] = RESERVED


def flag_of(variable: str) -> str:
    """The command line's name of a variable: OUTBOX_BATCH_SIZE is --batch-size."""
    return "--" + variable.removeprefix(PREFIX).lower().replace("_", "-")


def from_environment(
    environ: Mapping[str, str],
    *,
    need_broker: bool = True,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings, or raise a SettingsError that names what is wrong.

    `flags` holds what was given on the command line, by the variable's name; it wins.
    """
    reader = _Reader(environ, flags or {})
    settings = Settings(
        database_url=reader.secret("OUTBOX_DATABASE_URL", check_database_url, required=True),
        broker_url=reader.secret("OUTBOX_BROKER_URL", check_broker_url, required=need_broker),
        schema=reader.read("OUTBOX_SCHEMA", _identifier, "outbox"),
        declare=reader.read("OUTBOX_DECLARE", _declare, "missing"),
        batch_size=reader.read("OUTBOX_BATCH_SIZE", _between(1, 10_000), 500),
        window=reader.read("OUTBOX_WINDOW", _between(1, 100_000), 4000),
        max_attempts=reader.read("OUTBOX_MAX_ATTEMPTS", _between(1, 10_000), 10),
        retry_delay=reader.read("OUTBOX_RETRY_DELAY", duration, 1.0),
        retention=reader.read("OUTBOX_RETENTION", duration, 7 * 86400.0),
        http_address=reader.read("OUTBOX_HTTP_ADDRESS", _address, DEFAULT_ADDRESS),
        log_format=reader.read("OUTBOX_LOG_FORMAT", _log_format, "json"),
        log_level=reader.read("OUTBOX_LOG_LEVEL", _log_level, "info"),
        grace_period=reader.read("OUTBOX_GRACE_PERIOD", duration, 25.0),
        confirm_timeout=reader.read("OUTBOX_CONFIRM_TIMEOUT", _positive_duration, 30.0),
        statement_timeout=reader.read("OUTBOX_STATEMENT_TIMEOUT", _positive_duration, 10.0),
        lease=reader.read("OUTBOX_LEASE", _positive_duration, 10.0),
        redis_confirm=reader.read("OUTBOX_REDIS_CONFIRM", Durability.parse, MEMORY),
        transport_options=reader.secret(
            "OUTBOX_BROKER_TRANSPORT_OPTIONS", transport_options, required=False
        ),
        management_url=reader.read("OUTBOX_MANAGEMENT_URL", _management_url, None),
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


def _management_url(text: str) -> str | None:
    if not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", text):
        # Not a ValueError: the text may hold a password and must not be repeated.
        raise SettingsError("OUTBOX_MANAGEMENT_URL: give http://host:15672, without a password")
    return text.rstrip("/")


def transport_options(text: str) -> dict[str, Any]:
    """What Celery calls broker_transport_options, from JSON; nothing from nothing."""
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"give a JSON object: {error}") from error
    if not isinstance(options, dict):
        raise ValueError("give a JSON object")
    return options


def _identifier(text: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", text):
        raise ValueError("use lower-case letters, digits and underscores, at most 63")
    return text


def _declare(text: str) -> Literal["missing", "never"]:
    if text == "missing":
        return "missing"
    if text == "never":
        return "never"
    raise ValueError("say missing or never")


def _log_format(text: str) -> Literal["json", "console"]:
    if text == "json":
        return "json"
    if text == "console":
        return "console"
    raise ValueError("say json or console")


def _log_level(text: str) -> str:
    if text.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError("say debug, info, warning or error")
    return text.lower()


def _between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError(f"give a whole number from {low} to {high}")
        return int(text)

    return parse


def duration(text: str) -> float:
    """Seconds from `90`, `500ms`, `10s`, `5m`, `36h`, `7d` or `2w`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)?", text)
    if not match:
        raise ValueError("give a duration such as 30s, 5m, 36h or 7d")
    seconds = float(match[1]) * UNITS[match[2] or "s"]
    if seconds > LONGEST:  # beyond it the database's own clock arithmetic overflows
        raise ValueError(f"give at most {LONGEST // 86400}d")
    return seconds


def _positive_duration(text: str) -> float:
    seconds = duration(text)
    if seconds < 1:
        raise ValueError("give at least 1s")
    return seconds


def _address(text: str) -> Address:
    if text == "off":
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("give host:port, such as 0.0.0.0:9464, or off")
    return host.strip("[]") or "0.0.0.0", int(port)
