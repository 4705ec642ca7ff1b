"""All settings there are: the relay's own, and those of each broker in the registry."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from outbox_relay.broker.registry import BROKERS, SCHEMES
from outbox_relay.settings import Settings
from outbox_relay.settings.reader import read_settings
from outbox_relay.settings.setting import Setting, secret
from outbox_relay.settings.table import DATABASE_URL, OWN
from outbox_relay.settings.urls import check_broker_url

BROKER_URL: Final = secret(
    "OUTBOX_BROKER_URL",
    partial(check_broker_url, schemes=SCHEMES),
    "URL of the broker: "
    + ", ".join(f"`{scheme}://`" for scheme in SCHEMES)
    + "; several, separated by `;`, are tried in turn",
    "`/ ? # @` in a password are written `%2F %3F %23 %40`",
)
#: What the brokers' publishers read, and what only `doctor` does.
OF_BROKERS: Final = tuple(setting for broker in BROKERS for setting in broker.settings)
OF_CHECKS: Final = tuple(setting for broker in BROKERS for setting in broker.check_settings)
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

    `flags` holds what was given on the command line, by the variable's name; it wins.
    """
    required = [DATABASE_URL.name, *([BROKER_URL.name] if need_broker else [])]
    values = read_settings(TABLE, environ, flags or {}, required)
    own = {setting.field: values[setting.name] for setting in (BROKER_URL, *OWN)}
    of_brokers = {setting.name: values[setting.name] for setting in (*OF_BROKERS, *OF_CHECKS)}
    return Settings(**own, of_brokers=of_brokers)
