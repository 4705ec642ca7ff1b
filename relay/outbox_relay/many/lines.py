"""The lines of OUTBOX_DATABASES_FILE: each a database, which schemas of it, and what is set for it.

    # comment
    postgresql://relay@db1/shop
    postgresql://relay@db2/app  tenant_*  name=eu  window=500
    database_url_file=/run/secrets/us  tenant_*  name=us  broker_url_file=/run/secrets/us-broker

Without a schema it is `outbox`. A word with `*`, `?` or `[` is a pattern: every schema so named
that holds an outbox. Where two lines name the same schema of a database, the first one counts.
A setting is named like its variable, in lower case and without `OUTBOX_`.

No mistake repeats a URL: it may hold a password.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from outbox_relay.broker.registry import OF_BROKERS, OF_CHECKS
from outbox_relay.configuration import BROKER_URL, TABLE
from outbox_relay.errors import SettingsError
from outbox_relay.many.outbox import Outbox
from outbox_relay.settings import Secret, Settings
from outbox_relay.settings.setting import Setting
from outbox_relay.settings.table import (
    DATABASE_URL,
    DATABASES_FILE,
    GRACE_PERIOD,
    HTTP_ADDRESS,
    LOG_FORMAT,
    LOG_LEVEL,
    MAX_CONNECTIONS,
    SCHEMA,
    TRACING,
)

#: Of the whole process, whatever it serves.
OF_PROCESS: Final = (GRACE_PERIOD, HTTP_ADDRESS, LOG_FORMAT, LOG_LEVEL, MAX_CONNECTIONS, TRACING)
#: What may be set on a line, by its word there.
SETTABLE: Final[Mapping[str, Setting[Any]]] = {
    each.field: each for each in TABLE if each not in (*OF_PROCESS, SCHEMA, DATABASES_FILE)
}
#: Secrets that may be in a file.
FILES: Final = {f"{field}_file": each for field, each in SETTABLE.items() if each.secret}
NAME: Final = "name"
#: More mistakes than these are the same one again.
MAX_MISTAKES: Final = 5

_ASSIGNMENT: Final = re.compile(r"([a-z][a-z0-9_]*)=(.*)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
_PATTERN: Final = re.compile(r"[a-z0-9_*?\[\]!-]{1,100}", re.ASCII)
_WILD: Final = re.compile(r"[*?[]")


class Address(NamedTuple):
    """Where a database is; not as whom it is connected to."""

    host: str
    port: str
    database: str


@dataclass(frozen=True, slots=True)
class Line:
    """A database of the file; `settings` are those of each of its outboxes, but for the schema."""

    number: int
    name: str
    address: Address
    patterns: tuple[str, ...]
    settings: Settings

    @property
    def literal(self) -> tuple[str, ...]:
        """The schemas it names: they are served whether or not the database can be asked."""
        return tuple(each for each in self.patterns if not _WILD.search(each))

    @property
    def wild(self) -> tuple[str, ...]:
        """The patterns, which take a look at the database."""
        return tuple(each for each in self.patterns if _WILD.search(each))

    def schemas(self, known: Sequence[str]) -> list[str]:
        """Those it serves of the schemas known to hold an outbox, besides the ones it names."""
        found = [name for name in known if any(fnmatchcase(name, each) for each in self.wild)]
        return list(dict.fromkeys((*self.literal, *found)))

    def outbox(self, schema: str) -> Outbox:
        """The outbox in that schema; the schema `outbox` goes without saying."""
        name = self.name if schema == SCHEMA.default else f"{self.name}/{schema}"
        return Outbox(name, replace(self.settings, schema=schema))

    def named(self, name: str) -> Outbox | None:
        """The outbox of that name, if it could be one of this line; the database is not asked."""
        own, slash, schema = name.partition("/")
        schema = schema if slash else SCHEMA.default
        return self.outbox(schema) if own == self.name and self.schemas([schema]) else None


def parse(text: str, base: Settings, *, need_broker: bool = True) -> list[Line]:
    """The lines of the file; `base` is what they do not set. Raises SettingsError."""
    lines, mistakes = [], []
    for number, written in enumerate(text.splitlines(), start=1):
        if words := _words(written):
            try:
                lines.append(_line(number, words, base, need_broker=need_broker))
            except ValueError as error:
                mistakes.append(f"line {number}: {error}")
    mistakes = mistakes or _clashes(lines)
    if len(mistakes) > MAX_MISTAKES:
        mistakes[MAX_MISTAKES:] = [f"and {len(mistakes) - MAX_MISTAKES} more lines"]
    if mistakes:
        raise SettingsError("; ".join(mistakes))
    if not lines:
        raise SettingsError("it names no database: give postgresql://user@host/database on a line")
    return lines


def _words(written: str) -> list[str]:
    """The words of a line, up to a comment."""
    words = written.removeprefix("\ufeff").split()
    comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:comment]


def _line(number: int, words: list[str], base: Settings, *, need_broker: bool) -> Line:
    given: dict[str, str] = {}
    patterns: list[str] = []
    for position, word in enumerate(words, start=1):
        if "://" in word and not _ASSIGNMENT.fullmatch(word):
            _take(given, DATABASE_URL.field, word)
        elif match := _ASSIGNMENT.fullmatch(word):
            _take(given, match[1], match[2])
        elif _PATTERN.fullmatch(word):
            patterns.append(_pattern(word))
        else:
            raise ValueError(
                f"word {position} is no URL, no setting such as window=500, and no schema such as "
                "tenant_*: lower-case letters, digits, _ and * ? [ ]"
            )
    name = given.pop(NAME, "")
    settings, address = _settings(given, base)
    name = name or address.database
    if not _NAME.fullmatch(name):
        raise ValueError(
            "give it a name, such as name=shop: letters, digits, _ . and -, at most 63"
        )
    if need_broker and not settings.broker_url.read():
        raise ValueError(f"no broker: give broker_url=..., or {BROKER_URL.name} for all lines")
    settings = _belonging(settings, given, name)
    return Line(number, name, address, tuple(patterns) or (SCHEMA.default,), settings)


def _take(given: dict[str, str], key: str, value: str) -> None:
    if key in given:
        raise ValueError(f"{key} is given twice")
    if key != NAME and key not in SETTABLE and key not in FILES:
        raise ValueError(_unknown(key))
    if not value:
        raise ValueError(f"{key} is empty")
    given[key] = value


def _unknown(key: str) -> str:
    for each in OF_PROCESS:
        if key == each.field:
            return f"{key} is one for the whole process: set {each.name}"
    if key in (SCHEMA.field, "schemas"):
        return f"write schemas as words of their own: tenant_*, without {key}="
    if key in ("host", "dbname", "port", "user"):
        return "give a URL, or put the conninfo into a file: database_url_file=PATH"
    known = ", ".join((NAME, *SETTABLE))
    return f"{key} is nothing a line can set; there are: {known}"


def _pattern(word: str) -> str:
    if not _WILD.search(word):
        try:
            return SCHEMA.parse(word)
        except ValueError as error:
            raise ValueError(f"schema {word!r}: {error}") from error
    return word


def _settings(given: Mapping[str, str], base: Settings) -> tuple[Settings, Address]:
    own: dict[str, Any] = {DATABASES_FILE.field: None}
    of_brokers = dict(base.of_brokers)
    for key, text in given.items():
        setting = SETTABLE.get(key) or FILES[key]
        value = _value(setting, key, text, given)
        if setting in (*OF_BROKERS, *OF_CHECKS):
            of_brokers[setting.name] = value
        else:
            own[setting.field] = value
    if DATABASE_URL.field not in own:
        raise ValueError("no database: give postgresql://user@host/database")
    settings = replace(base, **own, of_brokers=of_brokers)
    return settings, _address(settings.database_url.read())


def _value(setting: Setting[Any], key: str, text: str, given: Mapping[str, str]) -> Any:
    if not setting.secret:
        try:
            return setting.parse(text)
        except ValueError as error:
            raise ValueError(f"{key}={text}: {error}") from error
    if key in FILES and setting.field in given:
        raise ValueError(f"{setting.field} and {key} are both given: keep one")
    secret: Secret = replace(setting.parse("" if key in FILES else text), name=key)
    if key in FILES:
        secret = replace(secret, value=None, path=Path(text))
    try:
        secret.read()
    except SettingsError as error:
        raise ValueError(str(error)) from error
    return secret


def _belonging(settings: Settings, given: Mapping[str, str], name: str) -> Settings:
    """The same, where each secret of the line says whose it is: errors name it, long afterwards."""
    own = {each.field for each in SETTABLE.values() if each.secret}
    secrets: dict[str, Any] = {
        field: replace(secret, name=f"{secret.name} of {name!r} in {DATABASES_FILE.name}")
        for field in own
        if (field in given or f"{field}_file" in given)
        and isinstance(secret := getattr(settings, field, None), Secret)
    }
    return replace(settings, **secrets)


def _address(url: str) -> Address:
    try:
        parts = conninfo_to_dict(url)
    except (ProgrammingError, UnicodeDecodeError) as error:  # its words have the text in them
        raise ValueError("the database's URL is none that libpq could read") from error
    host = parts.get("host") or parts.get("hostaddr") or ""
    port, database = parts.get("port") or "5432", parts.get("dbname") or ""
    return Address(str(host), str(port), str(database))


def _clashes(lines: Sequence[Line]) -> list[str]:
    """Databases that would go by one name."""
    first: dict[str, Line] = {}
    mistakes = []
    for line in lines:
        other = first.setdefault(line.name, line)
        if other.address != line.address:
            mistakes.append(
                f"line {line.number}: line {other.number} is another database and is called "
                f"{line.name!r} as well: give one of them name=..."
            )
    return mistakes
