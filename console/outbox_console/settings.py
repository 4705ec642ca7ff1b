"""Everything the console can be told, read once, with the variable named in each error.

Without anybody to sign in, it listens on loopback alone: `check` refuses another address.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from outbox_console.errors import SettingsError

Network = IPv4Network | IPv6Network

ROLES: Final = ("viewer", "viewer-with-payload", "operator", "operator-with-payload")

#: Whom a role is for that is mapped from no value of the claim.
EVERYBODY: Final = "*"

#: What the page Doctor runs.
DOCTOR: Final = "outbox-relay doctor --json"

#: Variable, default, and what `--help` says.
VARIABLES: Final = (
    ("OUTBOX_DATABASE_URL", "", "libpq URL or conninfo of the outbox's database"),
    ("OUTBOX_SCHEMA", "outbox", "Postgres schema of the tables"),
    ("OUTBOX_CONSOLE_ADDRESS", "127.0.0.1:9465", "where pages are served: host:port"),
    ("OUTBOX_CONSOLE_PEOPLE_FILE", "", "who may sign in: name:role:hash, one a line"),
    ("OUTBOX_CONSOLE_USER_HEADER", "", "header in which a reverse proxy names who signed in"),
    ("OUTBOX_CONSOLE_PROXIES", "", "addresses that header is believed from, comma-separated"),
    ("OUTBOX_CONSOLE_URL", "", "where browsers reach the console: https://outbox.example.com"),
    ("OUTBOX_CONSOLE_OIDC_ISSUER", "", "the OpenID Connect provider that people sign in with"),
    ("OUTBOX_CONSOLE_OIDC_CLIENT_ID", "", "the console's name there"),
    ("OUTBOX_CONSOLE_OIDC_SCOPE", "openid profile email", "what is asked of the provider"),
    ("OUTBOX_CONSOLE_OIDC_CLAIM", "groups", "the claim that roles are given by"),
    (
        "OUTBOX_CONSOLE_OIDC_ROLES",
        "",
        "value=role, comma-separated, the highest first; *=role for everybody of the provider",
    ),
    ("OUTBOX_CONSOLE_MASK", "", "package.module:function that hides parts of payloads"),
    ("OUTBOX_CONSOLE_DOCTOR", DOCTOR, "the command that the page Doctor runs"),
    ("OUTBOX_CONSOLE_RELAY_METRICS", "", "URLs of relays' metrics, comma-separated"),
    (
        "OUTBOX_CONSOLE_ROLE",
        "viewer",
        "role on loopback, and behind a reverse proxy: " + ", ".join(ROLES),
    ),
)
#: The name of the file that holds a value is given as NAME_FILE, and read anew for each use.
_SECRET: Final = "OUTBOX_DATABASE_URL"
_CLIENT_SECRET: Final = "OUTBOX_CONSOLE_OIDC_CLIENT_SECRET"
_KEY: Final = "OUTBOX_CONSOLE_KEY"
#: What is shorter somebody could guess.
_MIN_KEY: Final = 16


@dataclass(frozen=True, slots=True)
class OpenId:
    """A provider of OpenID Connect. `roles` are pairs of a claim's value and the role it means."""

    issuer: str
    client_id: str
    client_secret: Callable[[], str]
    url: str
    scope: str
    claim: str
    roles: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """The console's settings. `database_url` is called for each connection, and never shown.

    With `key`, several consoles take each other's forms.
    """

    database_url: Callable[[], str]
    schema: str = "outbox"
    host: str = "127.0.0.1"
    port: int = 9465
    people_file: Path | None = None
    user_header: str = ""
    proxies: tuple[Network, ...] = ()
    role: str = "viewer"
    doctor: str = DOCTOR
    relay_metrics: tuple[str, ...] = ()
    openid: OpenId | None = None
    mask: str = ""
    key: str = field(default="", repr=False)

    @property
    def knows_people(self) -> bool:
        """Whether anybody has to sign in."""
        return bool(self.people_file or self.user_header or self.openid)


def read(values: Mapping[str, str]) -> Settings:
    """The settings of an environment, into which flags were merged; raises SettingsError."""
    known = {name: values.get(name, "").strip() or default for name, default, _ in VARIABLES}
    host, port = _address(known["OUTBOX_CONSOLE_ADDRESS"])
    people = known["OUTBOX_CONSOLE_PEOPLE_FILE"]
    return check(
        Settings(
            database_url=_database_url(known[_SECRET], values.get(f"{_SECRET}_FILE", "")),
            schema=known["OUTBOX_SCHEMA"],
            host=host,
            port=port,
            people_file=Path(people) if people else None,
            user_header=known["OUTBOX_CONSOLE_USER_HEADER"],
            proxies=tuple(_network(part) for part in _parts(known["OUTBOX_CONSOLE_PROXIES"])),
            role=known["OUTBOX_CONSOLE_ROLE"],
            doctor=known["OUTBOX_CONSOLE_DOCTOR"],
            relay_metrics=tuple(_parts(known["OUTBOX_CONSOLE_RELAY_METRICS"])),
            openid=_openid(known, values),
            mask=known["OUTBOX_CONSOLE_MASK"],
            key=_key(values),
        )
    )


def check(settings: Settings) -> Settings:
    """The same, if they fit each other; else raises SettingsError."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", settings.schema):
        raise SettingsError("OUTBOX_SCHEMA: lower-case letters, digits and underscores, at most 63")
    if settings.role not in ROLES:
        raise SettingsError(f"OUTBOX_CONSOLE_ROLE: one of {', '.join(ROLES)}")
    if settings.key and len(settings.key) < _MIN_KEY:
        raise SettingsError(
            f"{_KEY}: at least {_MIN_KEY} characters, such as `openssl rand -hex 32` prints"
        )
    _check_doctor(settings.doctor)
    if not all(map(_is_url, settings.relay_metrics)):
        raise SettingsError(
            "OUTBOX_CONSOLE_RELAY_METRICS: URLs such as http://relay:9464/metrics, comma-separated"
        )
    if sum(map(bool, (settings.people_file, settings.user_header, settings.openid))) > 1:
        raise SettingsError(
            "OUTBOX_CONSOLE_PEOPLE_FILE, OUTBOX_CONSOLE_USER_HEADER and OUTBOX_CONSOLE_OIDC_ISSUER "
            "are ways to sign in: give one of them"
        )
    if settings.user_header and not settings.proxies:
        raise SettingsError(
            "OUTBOX_CONSOLE_PROXIES is needed with OUTBOX_CONSOLE_USER_HEADER: without it anybody "
            "could send that header"
        )
    if not settings.knows_people and not is_loopback(settings.host):
        raise SettingsError(
            f"OUTBOX_CONSOLE_ADDRESS: {settings.host} can be reached by others, and nobody would "
            "have to sign in. Set OUTBOX_CONSOLE_PEOPLE_FILE, OUTBOX_CONSOLE_USER_HEADER or "
            "OUTBOX_CONSOLE_OIDC_ISSUER, or listen on 127.0.0.1"
        )
    return settings


def is_loopback(host: str) -> bool:
    """Whether a host, as in a Host header or an address, is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def constant_url(url: str) -> Callable[[], str]:
    """A database URL that is given as text; raises SettingsError if it is none."""
    _conninfo("OUTBOX_DATABASE_URL", url)
    return lambda: url


def _database_url(url: str, file: str) -> Callable[[], str]:
    if file:
        return lambda: _conninfo(f"{_SECRET}_FILE", _content(Path(file)))
    if not url:
        raise SettingsError(f"{_SECRET} is not set: postgresql://login@host/database")
    return constant_url(url)


def _conninfo(name: str, text: str) -> str:
    try:
        conninfo_to_dict(text)
    except ProgrammingError:  # its message repeats the URL, which holds a password
        raise SettingsError(
            f"{name} is malformed: postgresql://login@host/database, without a driver's name"
        ) from None
    return text


def _content(path: Path, name: str = _SECRET) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE cannot be read: {error}") from error


def _key(values: Mapping[str, str]) -> str:
    file = values.get(f"{_KEY}_FILE", "")
    key = _content(Path(file), _KEY) if file else values.get(_KEY, "").strip()
    if file and not key:
        raise SettingsError(f"{_KEY}_FILE is empty")
    return key


def _openid(known: Mapping[str, str], values: Mapping[str, str]) -> OpenId | None:
    issuer = known["OUTBOX_CONSOLE_OIDC_ISSUER"].rstrip("/")
    if not issuer:
        return None
    url = known["OUTBOX_CONSOLE_URL"].rstrip("/")
    for name, given in (("OUTBOX_CONSOLE_OIDC_ISSUER", issuer), ("OUTBOX_CONSOLE_URL", url)):
        if not given.startswith(("https://", "http://")):
            raise SettingsError(f"{name}: an address such as https://outbox.example.com")
    if not known["OUTBOX_CONSOLE_OIDC_CLIENT_ID"]:
        raise SettingsError("OUTBOX_CONSOLE_OIDC_CLIENT_ID is not set: the provider's name for it")
    secret, file = values.get(_CLIENT_SECRET, ""), values.get(f"{_CLIENT_SECRET}_FILE", "")
    if not secret and not file:
        raise SettingsError(f"{_CLIENT_SECRET} is not set, nor {_CLIENT_SECRET}_FILE")

    def read() -> str:
        return _content(Path(file), _CLIENT_SECRET) if file else secret

    if not read():
        raise SettingsError(f"{_CLIENT_SECRET}_FILE is empty")
    roles = tuple(_role(part) for part in _parts(known["OUTBOX_CONSOLE_OIDC_ROLES"]))
    if not roles:
        raise SettingsError(
            "OUTBOX_CONSOLE_OIDC_ROLES is not set: everybody whom the provider knows would be let "
            "in. Give value=role for those who may, such as outbox-admins=operator, or *=viewer "
            "for everybody"
        )
    return OpenId(
        issuer=issuer,
        client_id=known["OUTBOX_CONSOLE_OIDC_CLIENT_ID"],
        client_secret=read,
        url=url,
        scope=known["OUTBOX_CONSOLE_OIDC_SCOPE"],
        claim=known["OUTBOX_CONSOLE_OIDC_CLAIM"],
        roles=roles,
    )


def _role(text: str) -> tuple[str, str]:
    value, _, role = text.rpartition("=")
    if not value.strip() or role.strip() not in ROLES:
        raise SettingsError(
            f"OUTBOX_CONSOLE_OIDC_ROLES: {text!r}: value=role, the role one of {', '.join(ROLES)}"
        )
    return value.strip(), role.strip()


def _check_doctor(command: str) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SettingsError(f"OUTBOX_CONSOLE_DOCTOR: {error}") from error
    if not words:
        raise SettingsError("OUTBOX_CONSOLE_DOCTOR: a command, such as outbox-relay doctor --json")


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError("OUTBOX_CONSOLE_ADDRESS: host:port, such as 127.0.0.1:9465")
    return host.strip("[]"), int(port)


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise SettingsError(f"OUTBOX_CONSOLE_PROXIES: {error}") from error


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
