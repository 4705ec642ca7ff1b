"""The settings of a relay, from environment and command line, with the brokers there are."""

from collections.abc import Mapping

from outbox_relay.broker.registry import SCHEMES
from outbox_relay.settings import Settings
from outbox_relay.settings.reader import read_settings


def from_environment(
    environ: Mapping[str, str],
    *,
    need_broker: bool = True,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings, or raise a SettingsError that names what is wrong.

    `flags` holds what was given on the command line, by the variable's name; it wins.
    """
    return read_settings(environ, flags or {}, SCHEMES, need_broker=need_broker)
