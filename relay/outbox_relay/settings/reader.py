"""Reads settings once, checks them whole, and names in each error the variable to correct."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from outbox_relay.errors import SettingsError
from outbox_relay.settings.secret import Secret
from outbox_relay.settings.setting import PREFIX, Setting, flag_of


def read_settings(
    table: Sequence[Setting[Any]],
    environ: Mapping[str, str],
    flags: Mapping[str, str],
    required: Sequence[str],
) -> dict[str, Any]:
    """The value of each setting of the table, by its name.

    `flags` holds what was given on the command line, by the variable's name; it wins. Raises a
    SettingsError that names what is wrong, missing or unknown.
    """
    given = {name.removesuffix("_FILE") for name in flags}
    shadowed = given | {f"{name}_FILE" for name in given}
    source = _Source({k: v for k, v in environ.items() if k not in shadowed}, flags)
    values = {}
    for setting in table:
        if setting.secret:
            values[setting.name] = source.secret(setting, required=setting.name in required)
        else:
            values[setting.name] = source.value(setting)
    source.refuse_unknown({name for setting in table for name in setting.variables})
    return values


class _Source:
    """Where texts come from: flags, and the environment behind them."""

    def __init__(self, environ: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self._flags = flags
        self._texts = {**environ, **flags}

    def _label(self, name: str) -> str:
        return flag_of(name) if name in self._flags else name

    def value(self, setting: Setting[Any]) -> Any:
        text = self._texts.get(setting.name, "").strip()
        if not text:
            return setting.initial
        try:
            return setting.parse(text)
        except ValueError as error:
            raise SettingsError(f"{self._label(setting.name)}={text!r}: {error}") from error

    def secret(self, setting: Setting[Secret], *, required: bool) -> Secret:
        name, file = setting.variables
        value, path = self._texts.get(name, "").strip(), self._texts.get(file)
        if value and path:
            both = f"{self._label(name)} and {self._label(file)}"
            raise SettingsError(f"{both} are both set: keep one")
        if not value and not path:
            if required:
                raise SettingsError(f"{name} is not set (nor {file}, a file holding it)")
            return setting.initial
        if path:
            secret = replace(setting.initial, name=self._label(file), path=Path(path))
        else:
            secret = replace(setting.parse(value), name=self._label(name))
        secret.read()
        return secret

    def refuse_unknown(self, known: set[str]) -> None:
        ours = {name for name in self._texts if name.startswith(PREFIX)}
        if unknown := sorted(ours - known):
            there_are = ", ".join(sorted(known))
            raise SettingsError(f"{unknown[0]} is not a setting; there are: {there_are}")
