"""All settings there are: the relay's own, and those of each broker in the registry."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from outbox_relay.broker.registry import OF_BROKERS, OF_CHECKS, SCHEMES
from outbox_relay.errors import SettingsError
from outbox_relay.settings import Settings
from outbox_relay.settings.reader import read_settings
from outbox_relay.settings.setting import Setting, secret
from outbox_relay.settings.table import DATABASE_URL, DATABASES_FILE, OWN, SCHEMA
from outbox_relay.settings.urls import check_broker_url

BROKER_URL: Final = secret(
    "OUTBOX_BROKER_URL",
    partial(check_broker_url, schemes=SCHEMES),
    "URL of the broker: "
    + ", ".join(f"`{scheme}://`" for scheme in SCHEMES)
    + "; several, separated by `;`, are tried in turn",
    "`/ ? # @` in a password are written `%2F %3F %23 %40`",
)
TABLE: Final[tuple[Setting[Any], ...]] = (
    DATABASE_URL,
    BROKER_URL,
    *(setting for setting in OWN if setting is not DATABASE_URL),
    *OF_BROKERS,
    *OF_CHECKS,
)


def from_environment(
    environ: Mapping[str, str],
    *,
    need_broker: bool = True,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings, or raise a SettingsError that names what is wrong.

    `flags` holds what was given on the command line, by the variable's name; it wins. Where a file
    names many databases, nothing is required besides: each of its lines may say the rest.
    """
    given = flags or {}
    environ = _one_or_many(environ, given)
    many = _set_of(environ, given, [DATABASES_FILE.name])
    required = [] if many else [DATABASE_URL.name, *([BROKER_URL.name] if need_broker else [])]
    values = read_settings(TABLE, environ, given, required)
    own = {setting.field: values[setting.name] for setting in (BROKER_URL, *OWN)}
    of_brokers = {setting.name: values[setting.name] for setting in (*OF_BROKERS, *OF_CHECKS)}
    return Settings(**own, of_brokers=of_brokers)


def _one_or_many(environ: Mapping[str, str], flags: Mapping[str, str]) -> Mapping[str, str]:
    """The environment without what a flag stands against: one outbox, or a file of many."""
    one, many = [*DATABASE_URL.variables, SCHEMA.name], [DATABASES_FILE.name]
    if not _set_of(environ, flags, many):
        return environ
    if _set_of({}, flags, one) and not _set_of({}, flags, many):
        return {name: text for name, text in environ.items() if name not in many}
    if _set_of({}, flags, many) and not _set_of({}, flags, one):
        return {name: text for name, text in environ.items() if name not in one}
    if both := _set_of(environ, flags, one):
        raise SettingsError(
            f"{DATABASES_FILE.name} and {both[0]} are both set: the file names databases and "
            "schemas, so keep one of the two"
        )
    return environ


def _set_of(
    environ: Mapping[str, str], flags: Mapping[str, str], names: Sequence[str]
) -> list[str]:
    """Those that are set; a blank one, as compose files make them, is not."""
    return [name for name in names if flags.get(name, environ.get(name, "")).strip()]
